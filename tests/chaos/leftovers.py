"""The leftovers of killed writers, aged so that the next run recognizes them."""

import os
import time

from tests.chaos.outputs import LocalOutput, Output, S3Output

_DAYS = 2


def leave_upload(output: Output) -> None:
    """A multipart upload with one part that nobody completes, as after a SIGKILL."""
    assert isinstance(output, S3Output)
    client, bucket = output.ground.server.client(), output.ground.server.bucket
    key = f"{output.name}/data/part-000000000000.parquet"
    upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=bytes(5 * 2**20))


def uploads_left(output: Output) -> list[str]:
    """Keys of the uploads that are neither completed nor given up."""
    assert isinstance(output, S3Output)
    found = output.ground.server.client().list_multipart_uploads(Bucket=output.ground.server.bucket)
    return [upload["Key"] for upload in found.get("Uploads", [])]


def writes_left(output: Output, *, age: bool = False) -> list[str]:
    """Temporary files of local writes; with `age` they become two days old."""
    assert isinstance(output, LocalOutput)
    paths = list((output.path / "_magpie/tmp").glob("*"))
    if age:
        for path in paths:
            then = time.time() - _DAYS * 86_400
            os.utime(path, (then, then))
    return [str(path) for path in paths]
