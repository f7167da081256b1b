// What `make clients` does with the client of @hey-api/openapi-ts: `node use_hey_api.js URL MODEL DATASET IMAGE`.
import { readFileSync } from "node:fs";
import { client } from "./hey_api/client.gen";
import {
  cancelJobV1JobsJobIdCancelPost as cancel,
  classifyV1ClassifyPost as classify,
  makeJobV1JobsPost as make,
} from "./hey_api/sdk.gen";

async function main(): Promise<void> {
  const [url, model, dataset, image] = process.argv.slice(2);
  client.setConfig({ baseUrl: url as "http://any", throwOnError: true });
  const picture = new Blob([new Uint8Array(readFileSync(image!))], { type: "image/png" });
  const found = await classify({ query: { model: model! }, body: { image: [picture] }, throwOnError: true });
  console.log("label", found.data.predictions[0]!.classes![0]!.label);
  const body = { model: "garment_classifier", weights: "none", dataset: dataset! } as const;
  const job = await make({ body, throwOnError: true });
  const cancelled = await cancel({ path: { job_id: job.data.id }, throwOnError: true });
  if (cancelled.data.status !== "cancelled") throw new Error(cancelled.data.status);
  console.log("job", job.data.id);
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
