//! Forged, stolen and outlived identities, each refused for its own reason; and identities that change while running.
//!
//! A caller is always told `credential_invalid`. What exactly was wrong is asked of the metric, whose labels are a
//! closed list.

pub mod provider;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use interlock::clock::Clock;
use interlock::model::{CredentialFault, Digest};
use rcgen::{DnType, KeyUsagePurpose, SerialNumber, date_time_ymd};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject;

use crate::support::client::{Client, Response, request};
use crate::support::upstream::{Script, Upstream};
use crate::support::world::{KEY, POLICY, Setup, World};
use provider::{CertificateAuthority, Issuer, base64url, key_set, token};

const AGENT: &str = "spiffe://prod.test/agents/7";
const ISSUER: &str = "https://issuer.test";
const AUDIENCE: &str = "https://gateway.test/things";

/// Permits `x-want: me` only to the actor these rules describe.
fn policy(me: &str) -> String {
    format!("{POLICY}\npermit contains \"me\" if {{\n\t\"me\" in wanted\n\t{me}\n}}\n")
}

fn unproved(world: &World, surface: &str, fault: CredentialFault) -> f64 {
    world.metric(&format!("interlock_unproved_total{{fault=\"{fault}\",surface=\"{surface}\"}}"))
}

/// One GET, on a connection of its own.
fn asking(headers: &[(&str, &str)]) -> Vec<u8> {
    let headers = [&[("x-want", "me"), ("connection", "close")], headers].concat();
    request("GET", "/v1/things", &headers, "")
}

/// As a client with this certificate; `None`: with none.
fn client_config(world: &World, client: Option<&provider::Client>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let server = rustls_pki_types::CertificateDer::from_pem_slice(world.tls.certificate.as_bytes());
    roots.add(server.expect("PEM")).expect("a root");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = match client {
        None => builder.with_no_client_auth(),
        Some(client) => builder
            .with_client_auth_cert(client.chain.clone(), client.key.clone_key())
            .expect("a certificate"),
    };
    Arc::new(config)
}

fn connect(world: &World, client: Option<&provider::Client>) -> Client {
    Client::connect_tls(world.address(), client_config(world, client))
}

fn ask_as(world: &World, client: Option<&provider::Client>, headers: &[(&str, &str)]) -> Response {
    let mut connection = connect(world, client);
    connection.send(asking(headers));
    connection.response()
}

/// Whether the gateway ends the connection without a byte of an answer.
fn is_turned_away(world: &World, client: Option<&provider::Client>) -> bool {
    let socket = std::net::TcpStream::connect(world.address()).expect("the gateway accepts");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    let name = ServerName::try_from("localhost").expect("a name");
    let session = ClientConnection::new(client_config(world, client), name).expect("a session");
    let mut stream = StreamOwned::new(session, socket);
    let mut answer = Vec::new();
    // Which step fails depends on when the alert arrives.
    let ended = stream.write_all(&asking(&[])).and_then(|()| stream.read_to_end(&mut answer));
    answer.is_empty() && ended.is_err()
}

/// A gateway that takes certificates of this authority.
fn mtls(authority: &CertificateAuthority, crl: String, me: &str) -> World {
    Setup {
        policy: policy(me),
        listener_tls: true,
        client_tls: ", client_roots: ./clients.pem, crls: [./clients.crl]",
        identity: "{ mtls: { trust_domains: [prod.test], paths: [/agents/*] } }".into(),
        files: vec![("clients.pem", authority.pem()), ("clients.crl", crl)],
        ..Setup::default()
    }
    .start()
}

#[test]
fn a_certificate_proves_the_spiffe_id_in_it() {
    let authority = CertificateAuthority::new("clients");
    let me = r#"input.actor.id == "spiffe://prod.test/agents/7"
	input.actor.method == "mtls"
	input.actor.claims.trust_domain == "prod.test"
	input.actor.claims.path == "/agents/7"
	input.actor.claims.serial == "07"
	input.actor.claims.issuer == "CN=clients""#;
    let world = mtls(&authority, authority.revoked(&[], 2090), me);
    let agent = authority.client(&[AGENT], |params| {
        params.distinguished_name.push(DnType::CommonName, "somebody else");
    });
    assert_eq!(ask_as(&world, Some(&agent), &[]).status, 200);
    let other = authority.client(&["spiffe://prod.test/agents/8"], |_| {});
    ask_as(&world, Some(&other), &[]).assert_refused(403, "policy_silent");
    world.finish();
}

#[test]
fn a_chain_that_does_not_verify_is_turned_away_in_the_handshake() {
    let authority = CertificateAuthority::new("clients");
    let world = mtls(&authority, authority.revoked(&[13], 2090), "true");
    let stranger = CertificateAuthority::new("strangers");
    let cases = [
        (CredentialFault::CertificateMissing, None),
        (CredentialFault::CertificateUntrusted, Some(stranger.client(&[AGENT], |_| {}))),
        (
            CredentialFault::CertificateExpired,
            Some(authority.client(&[AGENT], |params| params.not_after = date_time_ymd(2022, 1, 1))),
        ),
        (
            CredentialFault::CertificateNotYetValid,
            Some(authority.client(&[AGENT], |params| params.not_before = date_time_ymd(2080, 1, 1))),
        ),
        (
            CredentialFault::CertificateRevoked,
            Some(authority.client(&[AGENT], |params| {
                params.serial_number = Some(SerialNumber::from(13_u64));
            })),
        ),
    ];
    // One that has the name of a root is no root.
    let forger = CertificateAuthority::new("clients");
    assert!(is_turned_away(&world, Some(&forger.client(&[AGENT], |_| {}))));
    world.wait_for_metric("interlock_unproved_total{fault=\"certificate_untrusted\",surface=\"\"}", 1.0);
    for (fault, client) in cases {
        let before = unproved(&world, "", fault);
        assert!(is_turned_away(&world, client.as_ref()), "{fault}");
        world.wait_for_metric(
            &format!("interlock_unproved_total{{fault=\"{fault}\",surface=\"\"}}"),
            before + 1.0,
        );
    }
    assert_eq!(ask_as(&world, Some(&authority.client(&[AGENT], |_| {})), &[]).status, 200);
    world.finish();
}

#[test]
fn a_list_of_revoked_certificates_that_has_ended_turns_everybody_away() {
    let authority = CertificateAuthority::new("clients");
    let world = mtls(&authority, authority.revoked(&[], 2022), "true");
    assert!(is_turned_away(&world, Some(&authority.client(&[AGENT], |_| {}))));
    world.wait_for_metric("interlock_unproved_total{fault=\"revocation_list_expired\",surface=\"\"}", 1.0);
    world.finish();
}

#[test]
fn an_issuer_that_no_list_speaks_of_is_turned_away() {
    let authority = CertificateAuthority::new("clients");
    let other = CertificateAuthority::new("others");
    let world = mtls(&authority, other.revoked(&[], 2090), "true");
    assert!(is_turned_away(&world, Some(&authority.client(&[AGENT], |_| {}))));
    world.wait_for_metric("interlock_unproved_total{fault=\"revocation_unknown\",surface=\"\"}", 1.0);
    world.finish();
}

#[test]
fn a_name_that_is_not_exactly_one_allowed_spiffe_id_proves_nobody() {
    let authority = CertificateAuthority::new("clients");
    let world = mtls(&authority, authority.revoked(&[], 2090), "true");
    let cases: [(CredentialFault, &[&str]); 18] = [
        (CredentialFault::SpiffeMissing, &[]),
        (CredentialFault::SpiffeSeveral, &[AGENT, "spiffe://prod.test/agents/8"]),
        (CredentialFault::SpiffeSeveral, &[AGENT, AGENT]),
        (CredentialFault::SpiffeSeveral, &[AGENT, "https://prod.test/"]),
        (CredentialFault::SpiffeTrustDomain, &["spiffe://dev.test/agents/7"]),
        (CredentialFault::SpiffeTrustDomain, &["spiffe://prod.test.evil.test/agents/7"]),
        (CredentialFault::SpiffeMalformed, &["spiffe://Prod.test/agents/7"]),
        (CredentialFault::SpiffeMalformed, &["SPIFFE://prod.test/agents/7"]),
        (CredentialFault::SpiffeMalformed, &["spiffe://prod.test/agents/%37"]),
        (CredentialFault::SpiffeMalformed, &["spiffe://prod.test/x%2f..%2fagents/7"]),
        (CredentialFault::SpiffeMalformed, &["spiffe://prod.test/x/../agents/7"]),
        (CredentialFault::SpiffeMalformed, &["spiffe://prod.test/agents/7/"]),
        (CredentialFault::SpiffeMalformed, &["spiffe://prod.test"]),
        (CredentialFault::SpiffeMalformed, &["spiffe://prod.test:443/agents/7"]),
        (CredentialFault::SpiffeMalformed, &["https://prod.test/agents/7"]),
        (CredentialFault::SpiffePath, &["spiffe://prod.test/Agents/7"]),
        (CredentialFault::SpiffePath, &["spiffe://prod.test/agents/7/admin"]),
        (CredentialFault::SpiffePath, &["spiffe://prod.test/people/7"]),
    ];
    for (fault, uris) in cases {
        let before = unproved(&world, "test", fault);
        // The common name says what the URI should: it never counts.
        let client = authority.client(uris, |p| p.distinguished_name.push(DnType::CommonName, AGENT));
        ask_as(&world, Some(&client), &[]).assert_refused(401, "credential_invalid");
        assert_eq!(unproved(&world, "test", fault), before + 1.0, "{fault} {uris:?}");
    }
    let signer = authority.client(&[AGENT], |p| p.key_usages = vec![KeyUsagePurpose::KeyCertSign]);
    ask_as(&world, Some(&signer), &[]).assert_refused(401, "credential_invalid");
    assert_eq!(unproved(&world, "test", CredentialFault::CertificateRefused), 1.0);
    assert!(world.upstream.captures().is_empty());
    world.finish();
}

#[test]
fn a_certificate_revoked_while_its_connection_lives_proves_nobody_from_then_on() {
    let authority = CertificateAuthority::new("clients");
    let mut world = mtls(&authority, authority.revoked(&[], 2090), "true");
    let agent = authority.client(&[AGENT], |_| {});
    let mut connection = connect(&world, Some(&agent));
    let again = request("GET", "/v1/things", &[("x-want", "me")], "");
    connection.send(&again);
    assert_eq!(connection.response().status, 200);
    world.write("clients.crl", &authority.revoked(&[7], 2090), 0o600);
    world.reload();
    world.wait_for_metric("interlock_identity_reloads_total{part=\"tls\",result=\"in_force\"}", 1.0);
    connection.send(&again);
    connection.response().assert_refused(401, "credential_invalid");
    assert_eq!(unproved(&world, "test", CredentialFault::CertificateRevoked), 1.0);
    assert!(is_turned_away(&world, Some(&agent)));
    world.finish();
}

#[test]
fn what_cannot_be_used_leaves_the_last_good_state_in_force() {
    let authority = CertificateAuthority::new("clients");
    let mut world = mtls(&authority, authority.revoked(&[], 2090), "true");
    let agent = authority.client(&[AGENT], |_| {});
    world.write("clients.crl", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", 0o600);
    world.reload();
    world.wait_for_metric("interlock_identity_reloads_total{part=\"tls\",result=\"failed\"}", 1.0);
    assert_eq!(world.metric("interlock_identity_failing_parts"), 1.0);
    assert_eq!(ask_as(&world, Some(&agent), &[]).status, 200);
    world.write("clients.crl", &authority.revoked(&[], 2089), 0o600);
    world.reload();
    world.wait_for_metric("interlock_identity_failing_parts", 0.0);
    assert_eq!(ask_as(&world, Some(&agent), &[]).status, 200);
    world.finish();
}

#[test]
fn a_new_server_certificate_is_served_without_a_restart() {
    let mut world = Setup { listener_tls: true, ..Setup::default() }.start();
    let shown = |world: &World| shown_certificate(world.address());
    let first = shown(&world);
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    // The certificate alone does not fit the key: the old pair stays.
    world.write("tls.crt", &made.cert.pem(), 0o644);
    world.reload();
    world.wait_for_metric("interlock_identity_failing_parts", 1.0);
    assert_eq!(shown(&world), first);
    world.write("tls.key", &made.signing_key.serialize_pem(), 0o600);
    // Found by looking, without being told.
    world.wait_for_metric("interlock_identity_reloads_total{part=\"tls\",result=\"in_force\"}", 1.0);
    assert_eq!(shown(&world), made.cert.der().to_vec());
    world.finish();
}

/// The leaf that a handshake shows, whoever signed it.
fn shown_certificate(address: SocketAddr) -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let config = Arc::new(Seen::instead_of_verifying(config));
    let name = ServerName::try_from("localhost").expect("a name");
    let mut session = ClientConnection::new(config, name).expect("a session");
    let mut socket = std::net::TcpStream::connect(address).expect("the gateway accepts");
    while session.is_handshaking() {
        session.complete_io(&mut socket).expect("a handshake");
    }
    session.peer_certificates().expect("a chain")[0].to_vec()
}

/// Looks at a certificate and believes it.
#[derive(Debug)]
struct Seen;

impl Seen {
    fn instead_of_verifying(mut config: ClientConfig) -> ClientConfig {
        config.dangerous().set_certificate_verifier(Arc::new(Self));
        config
    }
}

impl rustls::client::danger::ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[test]
fn a_connection_that_is_too_old_is_closed_between_two_requests() {
    let world = Setup { limits: &["connection_age_ms_max: 500"], ..Setup::default() }.start();
    let mut connection = world.client();
    let start = Instant::now();
    connection.send(request("GET", "/v1/things", &[("x-api-key", KEY), ("x-want", "permit")], ""));
    assert_eq!(connection.response().status, 200);
    assert!(connection.try_response(false).is_none(), "closed without another answer");
    assert!(start.elapsed() < Duration::from_secs(9), "by its age, long before an idle one would be");
    world.finish();
}

// Tokens.

fn now() -> u64 {
    Clock::system().wall().unix_ns() / 1_000_000_000
}

/// Claims that are good, with some replaced or added: `name` and its JSON; an empty text takes it away.
fn claims(edits: &[(&str, &str)]) -> String {
    let mut members = vec![
        ("iss", format!("\"{ISSUER}\"")),
        ("sub", "\"agent-7\"".to_owned()),
        ("aud", format!("\"{AUDIENCE}\"")),
        ("iat", now().to_string()),
        ("exp", (now() + 600).to_string()),
    ];
    for (name, value) in edits {
        members.retain(|(n, _)| n != name);
        if !value.is_empty() {
            members.push((name, (*value).to_owned()));
        }
    }
    let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

const ES: &str = r#"{"alg":"ES256","kid":"ec","typ":"at+jwt"}"#;

fn identity(more: &str, keys: &str) -> String {
    format!(
        "{{ jwt: {{ issuer: \"{ISSUER}\", audiences: [\"{AUDIENCE}\"], algorithms: [ES256, RS256, EdDSA], keys: {keys}{more} }} }}"
    )
}

fn jwt(issuer: &Issuer, more: &str, me: &str) -> World {
    let keys = key_set(&[issuer.ec_jwk("ec"), issuer.rsa_jwk("rsa", "RS256"), issuer.ed_jwk("ed")]);
    Setup {
        policy: policy(me),
        identity: identity(more, "{ file: ./keys.json }"),
        credential: "x-upstream-key",
        files: vec![("keys.json", keys)],
        ..Setup::default()
    }
    .start()
}

fn bearer(world: &World, token: &str) -> Response {
    world.send(asking(&[("authorization", &format!("Bearer {token}"))]))
}

#[test]
fn a_token_of_the_issuer_proves_its_subject_with_all_it_says() {
    let issuer = Issuer::new();
    let me = r#"input.actor.id == "https://issuer.test#agent-7"
	input.actor.method == "jwt"
	input.actor.claims.act.sub == "https://issuer.test#scheduler"
	input.actor.claims.scope == "things:read""#;
    let world = jwt(&issuer, "", me);
    let said = claims(&[("act", r#"{"sub":"https://issuer.test#scheduler"}"#), ("scope", "\"things:read\"")]);
    for token in [
        issuer.es256(ES, &said),
        issuer.rs256(r#"{"alg":"RS256","kid":"rsa","typ":"application/at+JWT"}"#, &said),
        issuer.eddsa(r#"{"alg":"EdDSA","kid":"ed","typ":"at+jwt","x5t":"ignored"}"#, &said),
    ] {
        let answer = bearer(&world, &token);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    // The token is the gateway's to read, and nobody else's.
    assert!(world.upstream.captures().iter().all(|capture| capture.header("authorization").is_none()));
    let without = issuer.es256(ES, &claims(&[]));
    bearer(&world, &without).assert_refused(403, "policy_silent");
    world.finish();
}

#[test]
fn tokens_and_key_sets_of_pyjwt_are_taken_for_every_algorithm() {
    let mut script = crate::clients::python("jwt_python.py");
    let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python starts");
    let input = format!("{{\"claims\":{}}}", claims(&[]));
    script.stdin.take().expect("piped").write_all(input.as_bytes()).expect("written");
    let output = script.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let algorithms = "algorithms: [RS256, RS512, PS256, PS384, ES256, ES384, EdDSA]";
    let world = Setup {
        policy: policy("input.actor.id == \"https://issuer.test#agent-7\""),
        identity: identity("", "{ file: ./keys.json }")
            .replace("algorithms: [ES256, RS256, EdDSA]", algorithms),
        credential: "x-upstream-key",
        files: vec![("keys.json", made["keys"].to_string())],
        ..Setup::default()
    }
    .start();
    let tokens = made["tokens"].as_array().expect("a list");
    assert_eq!(tokens.len(), 7);
    for token in tokens {
        let (algorithm, token) = (&token[0], token[1].as_str().expect("a token"));
        assert_eq!(bearer(&world, token).status, 200, "{algorithm}");
    }
    world.finish();
}

#[test]
fn a_forged_token_proves_nobody_and_says_only_that() {
    use CredentialFault as F;
    let issuer = Issuer::new();
    let stranger = Issuer::new();
    let world = jwt(&issuer, "", "true");
    let good = claims(&[]);
    let es = |edits: &[(&str, &str)]| issuer.es256(ES, &claims(edits));
    let head = |header: &str| issuer.es256(header, &good);
    let hmac_with = |secret: &[u8], header: &str| {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
        token(header, &good, |signed| ring::hmac::sign(&key, signed).as_ref().to_vec())
    };
    let rsa_public = issuer.rsa_jwk("rsa", "RS256");
    let ago = |seconds: u64| (now() - seconds).to_string();
    let ahead = |seconds: u64| (now() + seconds).to_string();
    let whole = es(&[]);
    let (head_part, rest) = whole.split_once('.').expect("three parts");
    let (payload_part, signature_part) = rest.split_once('.').expect("three parts");
    let long = format!("\"{}\"", "x".repeat(8 * 1024));
    let cases: Vec<(F, String)> = vec![
        // No algorithm, another algorithm, and keys of another kind than the token says.
        (F::TokenAlgorithm, token(r#"{"alg":"none","typ":"at+jwt"}"#, &good, |_| Vec::new())),
        (F::TokenAlgorithm, token(r#"{"alg":"None","kid":"ec","typ":"at+jwt"}"#, &good, |_| Vec::new())),
        (F::TokenAlgorithm, token(r#"{"kid":"ec","typ":"at+jwt"}"#, &good, |_| Vec::new())),
        (
            F::TokenAlgorithm,
            hmac_with(rsa_public.as_bytes(), r#"{"alg":"HS256","kid":"rsa","typ":"at+jwt"}"#),
        ),
        (
            F::TokenSignature,
            hmac_with(rsa_public.as_bytes(), r#"{"alg":"RS256","kid":"rsa","typ":"at+jwt"}"#),
        ),
        (F::TokenAlgorithm, head(r#"{"alg":"RS256","kid":"ec","typ":"at+jwt"}"#)),
        (F::TokenAlgorithm, head(r#"{"alg":"ES256","kid":"rsa","typ":"at+jwt"}"#)),
        (F::TokenAlgorithm, head(r#"{"alg":"es256","kid":"ec","typ":"at+jwt"}"#)),
        (F::TokenAlgorithm, issuer.ps256(r#"{"alg":"PS256","kid":"rsa","typ":"at+jwt"}"#, &good)),
        (F::TokenSignature, issuer.ps256(r#"{"alg":"RS256","kid":"rsa","typ":"at+jwt"}"#, &good)),
        // Signed by somebody else, or not at all, or something else was signed.
        (F::TokenSignature, stranger.es256(ES, &good)),
        (F::TokenSignature, format!("{head_part}.{payload_part}.")),
        (
            F::TokenSignature,
            format!("{head_part}.{}.{signature_part}", base64url(claims(&[("sub", "\"root\"")]))),
        ),
        (
            F::TokenSignature,
            stranger.es256(
                &format!(r#"{{"alg":"ES256","kid":"ec","typ":"at+jwt","jwk":{}}}"#, stranger.ec_jwk("ec")),
                &good,
            ),
        ),
        // Which key.
        (F::TokenKeyUnknown, head(r#"{"alg":"ES256","kid":"other","typ":"at+jwt"}"#)),
        (F::TokenKeyUnknown, head(r#"{"alg":"ES256","typ":"at+jwt"}"#)),
        (F::TokenKeyUnknown, head(r#"{"alg":"ES256","kid":7,"typ":"at+jwt"}"#)),
        // What is critical, and of what type.
        (F::TokenCritical, head(r#"{"alg":"ES256","kid":"ec","typ":"at+jwt","crit":["exp"],"exp":1}"#)),
        (F::TokenCritical, head(r#"{"alg":"ES256","kid":"ec","typ":"at+jwt","crit":[]}"#)),
        (
            F::TokenCritical,
            head(r#"{"alg":"ES256","kid":"ec","typ":"at+jwt","crit":["urn:unknown"],"urn:unknown":1}"#),
        ),
        (F::TokenType, head(r#"{"alg":"ES256","kid":"ec","typ":"JWT"}"#)),
        (F::TokenType, head(r#"{"alg":"ES256","kid":"ec"}"#)),
        // For whom, and from whom.
        (F::TokenIssuer, es(&[("iss", "\"https://issuer.test/\"")])),
        (F::TokenIssuer, es(&[("iss", "")])),
        (F::TokenIssuer, es(&[("iss", &format!("[\"{ISSUER}\"]"))])),
        (F::TokenAudience, es(&[("aud", "")])),
        (F::TokenAudience, es(&[("aud", "\"https://elsewhere.test\"")])),
        (F::TokenAudience, es(&[("aud", r#"["https://elsewhere.test","https://gateway.test"]"#)])),
        (F::TokenAudience, es(&[("aud", "[]")])),
        (F::TokenAudience, es(&[("aud", &format!("[\"{AUDIENCE}\",7]"))])),
        (F::TokenAudience, es(&[("aud", &format!("{{\"a\":\"{AUDIENCE}\"}}"))])),
        // When.
        (F::TokenExpiry, es(&[("exp", "")])),
        (F::TokenExpiry, es(&[("exp", &format!("{}.5", now() + 600))])),
        (F::TokenExpiry, es(&[("exp", &format!("\"{}\"", now() + 600))])),
        (F::TokenExpiry, es(&[("exp", "1e300")])),
        (F::TokenExpiry, es(&[("exp", "null")])),
        (F::TokenExpired, es(&[("exp", &ago(1))])),
        (F::TokenNotYetValid, es(&[("nbf", &ahead(300))])),
        (F::TokenNotYetValid, es(&[("nbf", "\"now\"")])),
        (F::TokenIssuedAt, es(&[("iat", &ahead(300))])),
        (F::TokenIssuedAt, es(&[("iat", "-1")])),
        // Who.
        (F::TokenSubject, es(&[("sub", "")])),
        (F::TokenSubject, es(&[("sub", "\"\"")])),
        (F::TokenSubject, es(&[("sub", "7")])),
        (F::TokenSubject, es(&[("sub", "\"agent 7\"")])),
        (F::TokenSubject, es(&[("sub", &format!("\"{}\"", "x".repeat(256)))])),
        (F::TokenClaims, es(&[("mtls", "{\"trust_domain\":\"prod.test\"}")])),
        // Names that stand twice have two readings.
        (F::TokenMalformed, issuer.es256(ES, &good.replacen('{', "{\"sub\":\"root\",", 1))),
        (F::TokenMalformed, issuer.es256(ES, &good.replacen('{', "{\"s\\u0075b\":\"root\",", 1))),
        (F::TokenMalformed, head(r#"{"alg":"ES256","alg":"none","kid":"ec","typ":"at+jwt"}"#)),
        // Other shapes.
        (F::TokenMalformed, "e30".into()),
        (F::TokenMalformed, format!("{head_part}.{payload_part}")),
        (F::TokenMalformed, format!("{whole}.")),
        (F::TokenMalformed, format!("{whole}=")),
        (F::TokenMalformed, format!("{head_part}.{payload_part}.a")),
        (F::TokenMalformed, format!(" {whole}")),
        (F::TokenMalformed, token("[]", &good, |_| Vec::new())),
        (F::TokenMalformed, issuer.es256(ES, "[]")),
        (F::TokenTooLarge, es(&[("pad", &long)])),
        // Bound to what was not presented, or to what nobody here can check.
        (F::TokenBoundElsewhere, es(&[("cnf", &format!("{{\"x5t#S256\":\"{}\"}}", base64url([7; 32])))])),
        (F::TokenBoundElsewhere, es(&[("cnf", r#"{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}"#)])),
        (F::TokenBoundElsewhere, es(&[("cnf", "{}")])),
        (F::TokenBoundElsewhere, es(&[("cnf", "7")])),
    ];
    let mut bodies = std::collections::BTreeSet::new();
    for (fault, token) in &cases {
        let before = unproved(&world, "test", *fault);
        let answer = bearer(&world, token);
        answer.assert_refused(401, "credential_invalid");
        bodies.insert(answer.text());
        assert_eq!(unproved(&world, "test", *fault), before + 1.0, "{fault}: {token}");
    }
    assert_eq!(bodies.len(), 1, "no answer says more than another: {bodies:?}");
    assert!(world.upstream.captures().is_empty());
    assert_eq!(bearer(&world, &whole).status, 200);
    world.finish();
}

#[test]
fn an_audience_may_be_one_of_several_unless_only_ours_are_taken() {
    let issuer = Issuer::new();
    let several = claims(&[("aud", &format!("[\"https://elsewhere.test\",\"{AUDIENCE}\"]"))]);
    let world = jwt(&issuer, "", "true");
    assert_eq!(bearer(&world, &issuer.es256(ES, &several)).status, 200);
    world.finish();
    let world = jwt(&issuer, ", only_our_audiences: true, age_seconds_max: 60, types: [JWT]", "true");
    let typed = ES.replace("at+jwt", "JWT");
    bearer(&world, &issuer.es256(&typed, &several)).assert_refused(401, "credential_invalid");
    assert_eq!(unproved(&world, "test", CredentialFault::TokenAudience), 1.0);
    for iat in ["".to_owned(), (now() - 120).to_string()] {
        let token = issuer.es256(&typed, &claims(&[("iat", &iat)]));
        bearer(&world, &token).assert_refused(401, "credential_invalid");
    }
    assert_eq!(unproved(&world, "test", CredentialFault::TokenIssuedAt), 2.0);
    assert_eq!(bearer(&world, &issuer.es256(&typed, &claims(&[]))).status, 200);
    world.finish();
}

#[test]
fn a_credential_in_the_wrong_place_or_beside_another_is_no_proof() {
    let issuer = Issuer::new();
    let world = jwt(&issuer, "", "true");
    let good = issuer.es256(ES, &claims(&[]));
    let header = format!("Bearer {good}");
    world.send(asking(&[])).assert_refused(401, "credential_missing");
    world.send(asking(&[("x-api-key", KEY)])).assert_refused(401, "credential_missing");
    world
        .send(asking(&[("authorization", &header), ("authorization", &header)]))
        .assert_refused(401, "credential_ambiguous");
    let basic = format!("Basic {good}");
    world.send(asking(&[("authorization", &basic)])).assert_refused(401, "credential_invalid");
    world.finish();

    let keys = key_set(&[issuer.ec_jwk("ec"), issuer.ed_jwk("ed")]);
    let token = identity("", "{ file: ./keys.json }");
    let both = format!("{{ api_key: {{ headers: [x-api-key] }}, {}", token.trim_start_matches("{ "));
    let world = Setup {
        policy: policy("true"),
        identity: both,
        credential: "x-upstream-key",
        files: vec![("keys.json", keys)],
        ..Setup::default()
    };
    let world = world.start();
    world
        .send(asking(&[("authorization", &header), ("x-api-key", KEY)]))
        .assert_refused(401, "credential_ambiguous");
    assert_eq!(world.send(asking(&[("x-api-key", KEY)])).status, 200);
    assert_eq!(world.send(asking(&[("authorization", &header)])).status, 200);
    world.finish();
}

#[test]
fn a_stolen_token_is_worth_nothing_without_its_certificate() {
    use CredentialFault as F;
    let (issuer, authority) = (Issuer::new(), CertificateAuthority::new("clients"));
    let me = r#"input.actor.id == "https://issuer.test#agent-7"
	input.actor.claims.mtls.spiffe_id == "spiffe://prod.test/agents/7""#;
    let world = Setup {
        policy: policy(me),
        listener_tls: true,
        client_tls: ", client_roots: ./clients.pem, client_certificates: optional",
        identity: identity("", "{ file: ./keys.json }")
            .replace("{ jwt:", "{ require_both: true, mtls: { trust_domains: [prod.test] }, jwt:"),
        credential: "x-upstream-key",
        files: vec![("clients.pem", authority.pem()), ("keys.json", key_set(&[issuer.ec_jwk("ec")]))],
        ..Setup::default()
    }
    .start();
    let agent = authority.client(&[AGENT], |_| {});
    let thief = authority.client(&["spiffe://prod.test/agents/8"], |_| {});
    let thumbprint = base64url(Digest::of(&agent.chain[0]).as_bytes());
    let bound = issuer.es256(ES, &claims(&[("cnf", &format!("{{\"x5t#S256\":\"{thumbprint}\"}}"))]));
    let unbound = issuer.es256(ES, &claims(&[]));
    let (bound, unbound) = (format!("Bearer {bound}"), format!("Bearer {unbound}"));
    let cases = [
        (F::CertificateMissing, None, Some(&bound)),
        (F::TokenBoundElsewhere, Some(&thief), Some(&bound)),
        (F::TokenUnbound, Some(&agent), Some(&unbound)),
        (F::TokenMissing, Some(&agent), None),
    ];
    for (fault, client, token) in cases {
        let headers: Vec<_> = token.iter().map(|token| ("authorization", token.as_str())).collect();
        ask_as(&world, client, &headers).assert_refused(401, "credential_invalid");
        assert_eq!(unproved(&world, "test", fault), 1.0, "{fault}");
    }
    ask_as(&world, None, &[]).assert_refused(401, "credential_missing");
    assert_eq!(ask_as(&world, Some(&agent), &[("authorization", &bound)]).status, 200);
    world.finish();
}

#[test]
fn keys_in_files_change_without_a_restart() {
    let issuer = Issuer::new();
    let mut world = jwt(&issuer, "", "true");
    let before = issuer.es256(ES, &claims(&[]));
    assert_eq!(bearer(&world, &before).status, 200);
    let next = Issuer::new();
    world.write("keys.json", &key_set(&[next.ec_jwk("next")]), 0o644);
    world.reload();
    world.wait_for_metric("interlock_identity_reloads_total{part=\"key_set\",result=\"in_force\"}", 1.0);
    bearer(&world, &before).assert_refused(401, "credential_invalid");
    let header = r#"{"alg":"ES256","kid":"next","typ":"at+jwt"}"#;
    assert_eq!(bearer(&world, &next.es256(header, &claims(&[]))).status, 200);
    // With a single key, the token need not name it.
    let header = r#"{"alg":"ES256","typ":"at+jwt"}"#;
    assert_eq!(bearer(&world, &next.es256(header, &claims(&[]))).status, 200);
    world.finish();

    let digest = |key: &str| Digest::of(key.as_bytes()).to_string().split_off("sha-256:".len());
    let key = |key: &str| format!("- {{ id: agent-7, prefix: {}, sha256: {} }}\n", &key[..12], digest(key));
    let mut world = Setup {
        policy: policy("true"),
        api_keys: Some("{ file: ./keys.yaml }"),
        files: vec![("keys.yaml", key(KEY))],
        ..Setup::default()
    }
    .start();
    assert_eq!(world.send(asking(&[("x-api-key", KEY)])).status, 200);
    const NEXT: &str = "ilk_agent009bmV4dG5leHRuZXh0bmV4dG5leHQ";
    world.write("keys.yaml", "- { id: agent-7 }\n", 0o644);
    world.reload();
    world.wait_for_metric("interlock_identity_failing_parts", 1.0);
    assert_eq!(world.send(asking(&[("x-api-key", KEY)])).status, 200);
    world.write("keys.yaml", &key(NEXT), 0o644);
    world.reload();
    world.wait_for_metric("interlock_identity_failing_parts", 0.0);
    world.send(asking(&[("x-api-key", KEY)])).assert_refused(401, "credential_invalid");
    assert_eq!(world.send(asking(&[("x-api-key", NEXT)])).status, 200);
    world.finish();
}

#[test]
fn a_fetched_key_set_is_fetched_again_for_a_key_it_lacks_and_goes_stale() {
    let (issuer, next) = (Issuer::new(), Issuer::new());
    let provider = Upstream::plain();
    provider.on("/keys", Script::ok(&key_set(&[issuer.ec_jwk("ec")])));
    let keys = format!(
        "{{ url: \"http://{}/keys\", refresh_seconds: 2, refetch_seconds_min: 1, stale_seconds_max: 4 }}",
        provider.address()
    );
    let world = Setup {
        policy: policy("true"),
        identity: identity("", &keys),
        credential: "x-upstream-key",
        ..Setup::default()
    }
    .start();
    let fetched = |n| {
        let name = "interlock_identity_reloads_total{part=\"fetched_key_set\",result=\"in_force\"}";
        world.wait_for_metric(name, n);
    };
    fetched(1.0);
    assert_eq!(bearer(&world, &issuer.es256(ES, &claims(&[]))).status, 200);
    provider.on("/keys", Script::ok(&key_set(&[next.ec_jwk("next")])));
    let rotated = next.es256(r#"{"alg":"ES256","kid":"next","typ":"at+jwt"}"#, &claims(&[]));
    // Refused now, never waited for; the key is there a moment later.
    bearer(&world, &rotated).assert_refused(401, "credential_invalid");
    fetched(2.0);
    assert_eq!(bearer(&world, &rotated).status, 200);
    // However often a key is asked for, it is fetched once a second at most.
    let before = provider.captures().len();
    let start = Instant::now();
    for _ in 0..50 {
        bearer(&world, &issuer.es256(ES, &claims(&[]))).assert_refused(401, "credential_invalid");
    }
    let most = start.elapsed().as_secs() as usize + 2;
    assert!(provider.captures().len() - before <= most, "{} fetches", provider.captures().len() - before);
    // An issuer that is gone: its keys are believed for a while, and then not.
    provider.on("/keys", Script::json(500, "{}"));
    world.wait_for_metric("interlock_identity_failing_parts", 1.0);
    let start = Instant::now();
    while bearer(&world, &rotated).status == 200 {
        assert!(start.elapsed() < Duration::from_secs(15), "the keys never go stale");
        thread::sleep(Duration::from_millis(50));
    }
    assert!(unproved(&world, "test", CredentialFault::TokenKeysStale) >= 1.0);
    world.finish();
}
