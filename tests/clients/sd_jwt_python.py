"""The sd-jwt library reads a redacted policy input with the disclosures of its values."""
import json
import sys

from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS
from sd_jwt.verifier import SDJWTVerifier

with open(sys.argv[1]) as file:
    given = json.load(file)
payload = given["evidence"] | {"_sd_alg": "sha-256"}
key = JWK.generate(kty="EC", crv="P-256")
token = JWS(payload=json.dumps(payload))
token.add_signature(key, alg="ES256", protected=json.dumps({"alg": "ES256", "typ": "example+sd-jwt"}))
presentation = "~".join([token.serialize(compact=True), *given["disclosures"], ""])
verifier = SDJWTVerifier(presentation, lambda issuer, header: key)
print(json.dumps(verifier.get_verified_payload()))
