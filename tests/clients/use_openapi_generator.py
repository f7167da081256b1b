# mypy: ignore-errors
"""What `make clients` does with the client of openapi-generator: `use_...py URL MODEL DATASET IMAGE`."""

import sys
from pathlib import Path

import openapi_client

url, model, dataset, image = sys.argv[1:]
with openapi_client.ApiClient(openapi_client.Configuration(host=url)) as client:
    predict, jobs = openapi_client.PredictApi(client), openapi_client.JobsApi(client)
    found = predict.classify_v1_classify_post(model=model, image=[("a.png", Path(image).read_bytes())])
    print("label", found.predictions[0].classes[0].label)
    request = openapi_client.FineTuneRequest(model="garment_classifier", weights="none", dataset=dataset)
    job = jobs.make_job_v1_jobs_post(openapi_client.Body(request))
    assert job.id in [one.id for one in jobs.list_jobs_v1_jobs_get().data]
    assert jobs.cancel_job_v1_jobs_job_id_cancel_post(job.id).status == "cancelled"
    print("job", job.id)
