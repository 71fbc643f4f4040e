"""The official OpenAI library, streaming."""
import json
import sys

from openai import OpenAI

base, key = sys.argv[1:3]
client = OpenAI(base_url=base + "/v1", api_key=key, max_retries=2)
stream = client.chat.completions.create(
    model="model-1",
    messages=[{"role": "user", "content": "Grüße"}],
    temperature=0.7,
    stream=True,
)
pieces = []
for event in stream:
    pieces.append(event.choices[0].delta.content)
    # Told to the test as they come, so that it can see that none waits for the next.
    print(json.dumps(pieces[-1]), flush=True)
print(json.dumps({"text": "".join(pieces)}))
