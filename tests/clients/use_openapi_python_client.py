# mypy: ignore-errors
"""What `make clients` does with the client of openapi-python-client: `use_...py URL MODEL DATASET IMAGE`."""

import sys
from io import BytesIO
from pathlib import Path

from fovea_client import Client
from fovea_client.api.jobs import cancel_job_v1_jobs_job_id_cancel_post as cancel
from fovea_client.api.jobs import list_jobs_v1_jobs_get as jobs
from fovea_client.api.jobs import make_job_v1_jobs_post as make
from fovea_client.api.predict import classify_v1_classify_post as classify
from fovea_client.models import ClassifyV1ClassifyPostFilesBody, FineTuneRequest
from fovea_client.types import File

url, model, dataset, image = sys.argv[1:]
client = Client(base_url=url)
picture = File(payload=BytesIO(Path(image).read_bytes()), file_name="a.png", mime_type="image/png")
found = classify.sync(client=client, model=model, body=ClassifyV1ClassifyPostFilesBody(image=[picture]))
print("label", found.predictions[0].classes[0].label)
job = make.sync(client=client, body=FineTuneRequest(model="garment_classifier", weights="none", dataset=dataset))
assert job.id in [one.id for one in jobs.sync(client=client).data]
assert cancel.sync(job.id, client=client).status == "cancelled"
print("job", job.id)
