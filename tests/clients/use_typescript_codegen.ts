// What `make clients` does with openapi-typescript-codegen: `node use_typescript_codegen.js URL MODEL DATASET IMAGE`.
import { readFileSync } from "node:fs";
import { JobsService, OpenAPI, PredictService } from "./typescript_codegen/index";

async function main(): Promise<void> {
  const [url, model, dataset, image] = process.argv.slice(2);
  OpenAPI.BASE = url!;
  const picture = new Blob([new Uint8Array(readFileSync(image!))], { type: "image/png" });
  const found = await PredictService.classifyV1ClassifyPost(model!, { image: [picture] });
  console.log("label", found.predictions[0]!.classes![0]!.label);
  const job = await JobsService.makeJobV1JobsPost({ model: "garment_classifier", weights: "none", dataset: dataset! });
  const cancelled = await JobsService.cancelJobV1JobsJobIdCancelPost(job.id);
  if (cancelled.status !== "cancelled") throw new Error(cancelled.status);
  console.log("job", job.id);
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
