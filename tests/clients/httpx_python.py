"""httpx over HTTP/1.1 and over HTTP/2 with TLS."""
import json
import sys

import httpx

base, key, roots, version = sys.argv[1:5]
import ssl

context = ssl.create_default_context(cafile=roots)
found = []
with httpx.Client(base_url=base, verify=context, http2=version == "2", headers={"x-api-key": key}) as client:
    for want, body in [("permit", {"amount": 10, "text": "Grüße"}), ("deny", {}), ("permit", {"amount": 1001})]:
        answer = client.post("/v1/things", json=body, headers={"x-want": want}, params={"a": "b c", "n": "1"})
        found.append([answer.status_code, answer.http_version, answer.json().get("reason")])
    answer = client.get("/v1/things", params=[("expand[]", "a"), ("expand[]", "b")], headers={"x-want": "permit"})
    found.append([answer.status_code, answer.http_version, None])
    answer = client.put(
        "/v1/blobs/b",
        content=iter([b"x" * 1000] * 100),
        headers={"x-want": "permit", "content-type": "application/octet-stream"},
    )
    found.append([answer.status_code, answer.http_version, None])
print(json.dumps(found))
