"""Makes a key set and one token for each algorithm, as an issuer with PyJWT does.

Reads a JSON object: `claims`, the payload. Prints one: `keys`, the JWK set, and `tokens`, a list of [algorithm, token].
"""

import json
import sys

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

claims = json.load(sys.stdin)["claims"]
rsa_keys = [rsa.generate_private_key(public_exponent=65537, key_size=size) for size in (2048, 3072)]
keys = [
    ("RS256", rsa_keys[0], RSAAlgorithm),
    ("RS512", rsa_keys[1], RSAAlgorithm),
    ("PS256", rsa_keys[0], RSAAlgorithm),
    ("PS384", rsa_keys[1], RSAAlgorithm),
    ("ES256", ec.generate_private_key(ec.SECP256R1()), ECAlgorithm),
    ("ES384", ec.generate_private_key(ec.SECP384R1()), ECAlgorithm),
    ("EdDSA", ed25519.Ed25519PrivateKey.generate(), OKPAlgorithm),
]
key_set, tokens = [], []
for algorithm, key, family in keys:
    public = json.loads(family.to_jwk(key.public_key()))
    key_set.append(public | {"alg": algorithm, "kid": algorithm, "use": "sig", "key_ops": ["verify"]})
    header = {"kid": algorithm, "typ": "at+jwt"}
    tokens.append([algorithm, jwt.encode(claims, key, algorithm=algorithm, headers=header)])
json.dump({"keys": {"keys": key_set}, "tokens": tokens}, sys.stdout)
