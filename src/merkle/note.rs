//! C2SP signed notes (signed-note 1.0.0): a text, and Ed25519 signatures over it by named keys.
//!
//! Form: text ending in LF, an empty line, then lines `U+2014 SP name SP base64(key_id || signature) LF`.
//! A line by a key that is not known is ignored; one by a known key whose signature is wrong rejects the
//! whole note. At most 16 signatures.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, UnparsedPublicKey};

use super::frame::FrameKey;
use crate::limits;
use crate::model::{Digest, LogOrigin};

/// Signature type byte of plain Ed25519.
pub const ALGORITHM_ED25519: u8 = 0x01;

const DASH: &str = "\u{2014} ";

/// First four bytes of `SHA-256(name || 0x0A || type || public key)`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyId([u8; 4]);

impl KeyId {
    pub fn of(name: &LogOrigin, public_key: &[u8; 32]) -> Self {
        let text = [name.as_str().as_bytes(), b"\n", &[ALGORITHM_ED25519], public_key].concat();
        let [a, b, c, d, ..] = *Digest::of(&text).as_bytes();
        Self([a, b, c, d])
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A named Ed25519 public key, `name+hex8(key_id)+base64(0x01 || key)` as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: LogOrigin,
    id: KeyId,
    public_key: [u8; 32],
}

/// The text is not a verifier key that can be used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVerifierKey {
    #[error("expected `name+8 hex digits+base64`")]
    Form,
    #[error("only Ed25519 keys (type 1) are supported")]
    Algorithm,
    #[error("the key id does not belong to this name and key")]
    KeyId,
}

impl VerifierKey {
    pub fn new(name: LogOrigin, public_key: [u8; 32]) -> Self {
        let id = KeyId::of(&name, &public_key);
        Self { name, id, public_key }
    }

    pub fn name(&self) -> &LogOrigin {
        &self.name
    }

    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Whether both wrap the same public key, whatever they are called.
    pub fn has_public_key_of(&self, other: &Self) -> bool {
        self.public_key == other.public_key
    }

    fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.public_key).verify(text, signature).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut typed = vec![ALGORITHM_ED25519];
        typed.extend_from_slice(&self.public_key);
        write!(f, "{}+{}+{}", self.name, self.id, STANDARD.encode(typed))
    }
}

impl FromStr for VerifierKey {
    type Err = InvalidVerifierKey;

    fn from_str(text: &str) -> Result<Self, InvalidVerifierKey> {
        // Base64 may hold plus signs; a name may not.
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(InvalidVerifierKey::Form);
        };
        let name: LogOrigin = name.parse().map_err(|_| InvalidVerifierKey::Form)?;
        let typed = STANDARD.decode(key).map_err(|_| InvalidVerifierKey::Form)?;
        let (&algorithm, public_key) = typed.split_first().ok_or(InvalidVerifierKey::Form)?;
        if algorithm != ALGORITHM_ED25519 {
            return Err(InvalidVerifierKey::Algorithm);
        }
        let public_key = public_key.try_into().map_err(|_| InvalidVerifierKey::Form)?;
        let key = Self::new(name, public_key);
        if key.id.to_string() == id { Ok(key) } else { Err(InvalidVerifierKey::KeyId) }
    }
}

/// Holds a private key and signs with it. The file signer is `ledger::FileSigner`.
pub trait Signer: Send {
    fn verifier(&self) -> &VerifierKey;
    /// Ed25519 over exactly these bytes. Deterministic: the same text gives the same signature.
    fn sign(&self, text: &[u8]) -> Result<[u8; 64], SigningFailed>;

    /// The key that seals frames: SHA-256 of the signature over `interlock-frame-key-v1 LF name LF`, which is no
    /// checkpoint's text and is never published. So a key in hardware needs to be able to do nothing but sign.
    fn frame_key(&self) -> Result<FrameKey, SigningFailed> {
        let text = format!("interlock-frame-key-v1\n{}\n", self.verifier().name());
        Ok(FrameKey::new(Digest::of(&self.sign(text.as_bytes())?).as_bytes()))
    }
}

/// The key could not be used; nothing was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signing key cannot be used")]
pub struct SigningFailed;

/// Why a note is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    #[error("not a signed note")]
    Malformed,
    #[error("more than 16 signatures")]
    TooManySignatures,
    #[error("a known key's signature does not verify")]
    BadSignature,
    #[error("no signature by a known key")]
    NotSigned,
}

/// Signs a text that ends in LF and has no other control character.
pub fn sign_note(text: &str, signer: &dyn Signer) -> Result<String, SigningFailed> {
    sign_note_with_all(text, [signer])
}

/// One signature line for each signer, in their order. If one cannot sign there is no note: readers who pinned
/// its key would have nothing to go by.
pub fn sign_note_with_all<'s>(
    text: &str,
    signers: impl IntoIterator<Item = &'s dyn Signer>,
) -> Result<String, SigningFailed> {
    assert!(is_note_text(text), "our own note texts are well-formed");
    let mut note = format!("{text}\n");
    let mut lines = 0;
    for signer in signers {
        let key = signer.verifier();
        let line = [&key.id.0[..], &signer.sign(text.as_bytes())?].concat();
        note.extend([DASH, key.name.as_str(), " ", &STANDARD.encode(line), "\n"]);
        lines += 1;
    }
    assert!((1..=limits::NOTE_SIGNATURES_MAX).contains(&lines), "a note has 1 to 16 signatures");
    Ok(note)
}

/// One signature line, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureLine {
    pub name: String,
    pub id: KeyId,
    pub signature: Vec<u8>,
}

/// Takes a note apart: its text (with the final LF) and its lines. Nothing is verified.
pub fn parse_note_unverified(note: &[u8]) -> Result<(&str, Vec<SignatureLine>), NoteError> {
    if note.len() > limits::NOTE_BYTES_MAX {
        return Err(NoteError::Malformed);
    }
    let note = std::str::from_utf8(note).map_err(|_| NoteError::Malformed)?;
    // The last empty line separates: a text may hold empty lines, signatures may not.
    let split = note.rfind("\n\n").ok_or(NoteError::Malformed)?;
    let (text, lines) = (&note[..=split], &note[split + 2..]);
    if !is_note_text(text) || !lines.ends_with('\n') {
        return Err(NoteError::Malformed);
    }
    let lines: Vec<_> = lines
        .split_terminator('\n')
        .map(signature_line)
        .collect::<Option<_>>()
        .ok_or(NoteError::Malformed)?;
    match lines.len() {
        0 => Err(NoteError::Malformed),
        1..=limits::NOTE_SIGNATURES_MAX => Ok((text, lines)),
        _ => Err(NoteError::TooManySignatures),
    }
}

/// The note's text, if at least one known key signed it and no known key's signature is wrong.
pub fn verify_note<'n>(note: &'n [u8], known: &[VerifierKey]) -> Result<&'n str, NoteError> {
    verify_lines(note, known).map(|(text, _)| text)
}

/// The known keys that signed the note: at least one, and no known key's signature is wrong.
pub fn signers_of_note(note: &[u8], known: &[VerifierKey]) -> Result<Vec<VerifierKey>, NoteError> {
    verify_lines(note, known).map(|(_, signers)| signers.into_iter().cloned().collect())
}

fn verify_lines<'n, 'k>(
    note: &'n [u8],
    known: &'k [VerifierKey],
) -> Result<(&'n str, Vec<&'k VerifierKey>), NoteError> {
    let (text, lines) = parse_note_unverified(note)?;
    let mut signers = Vec::new();
    for line in &lines {
        let Some(key) = known.iter().find(|k| k.name.as_str() == line.name && k.id == line.id) else {
            continue;
        };
        if !key.verifies(text.as_bytes(), &line.signature) {
            return Err(NoteError::BadSignature);
        }
        if !signers.contains(&key) {
            signers.push(key);
        }
    }
    if signers.is_empty() { Err(NoteError::NotSigned) } else { Ok((text, signers)) }
}

fn is_note_text(text: &str) -> bool {
    text.ends_with('\n') && !text.chars().any(|c| c < '\u{20}' && c != '\n')
}

fn signature_line(line: &str) -> Option<SignatureLine> {
    let (name, encoded) = line.strip_prefix(DASH)?.split_once(' ')?;
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '+') {
        return None;
    }
    let decoded = STANDARD.decode(encoded).ok()?;
    let (id, signature) = decoded.split_first_chunk::<4>()?;
    // An id without a signature signs nothing, by any algorithm.
    (!signature.is_empty()).then(|| SignatureLine {
        name: name.to_owned(),
        id: KeyId(*id),
        signature: signature.to_vec(),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    /// A signer from a fixed seed: the same signatures every time.
    pub(crate) struct SeedSigner(Ed25519KeyPair, VerifierKey);

    impl SeedSigner {
        pub(crate) fn new(name: &str, seed: u8) -> Self {
            let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("32 bytes");
            let public = pair.public_key().as_ref().try_into().expect("32 bytes");
            Self(pair, VerifierKey::new(name.parse().expect("a name"), public))
        }
    }

    impl Signer for SeedSigner {
        fn verifier(&self) -> &VerifierKey {
            &self.1
        }

        fn sign(&self, text: &[u8]) -> Result<[u8; 64], SigningFailed> {
            Ok(self.0.sign(text).as_ref().try_into().expect("64 bytes"))
        }
    }

    const TEXT: &str = "example.org/log\n5\nroot\n";

    #[test]
    fn the_key_of_the_go_checksum_database_has_its_published_id() {
        // The verifier key of sum.golang.org as shipped with Go: a known answer for id and form.
        let vkey = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
        let key: VerifierKey = vkey.parse().expect("published key");
        assert_eq!(key.name().as_str(), "sum.golang.org");
        assert_eq!(key.to_string(), vkey);
    }

    #[test]
    fn verifier_keys_with_another_id_algorithm_or_form_are_refused() {
        let vkey = SeedSigner::new("log", 1).verifier().to_string();
        let parts: Vec<_> = vkey.splitn(3, '+').collect();
        let parse = |s: String| s.parse::<VerifierKey>().expect_err("refused");
        assert_eq!(parse(format!("other+{}+{}", parts[1], parts[2])), InvalidVerifierKey::KeyId);
        assert_eq!(
            parse(format!("log+{}+{}", parts[1].to_uppercase() + "0", parts[2])),
            InvalidVerifierKey::KeyId
        );
        let cosigner = STANDARD.encode([&[4u8][..], &[7; 32]].concat());
        assert_eq!(parse(format!("log+{}+{cosigner}", parts[1])), InvalidVerifierKey::Algorithm);
        let short = STANDARD.encode([&[1u8][..], &[7; 31]].concat());
        assert_eq!(parse(format!("log+{}+{short}", parts[1])), InvalidVerifierKey::Form);
        assert_eq!(parse("log+00000000".into()), InvalidVerifierKey::Form);
        assert_eq!(parse(vkey[3..].into()), InvalidVerifierKey::Form);
    }

    #[test]
    fn a_signed_note_verifies_and_a_changed_text_does_not() {
        let signer = SeedSigner::new("example.org/log", 1);
        let note = sign_note(TEXT, &signer).expect("signs");
        let known = [signer.verifier().clone()];
        assert_eq!(verify_note(note.as_bytes(), &known), Ok(TEXT));
        let changed = note.replacen('5', "6", 1);
        assert_eq!(verify_note(changed.as_bytes(), &known), Err(NoteError::BadSignature));
    }

    #[test]
    fn an_unknown_key_is_ignored_and_a_known_key_with_a_bad_signature_rejects() {
        let (a, b) = (SeedSigner::new("log", 1), SeedSigner::new("log", 2));
        let by_a = sign_note(TEXT, &a).expect("signs");
        let line_b = sign_note(TEXT, &b).expect("signs")[TEXT.len() + 1..].to_owned();
        let both = by_a.clone() + &line_b;
        assert_eq!(verify_note(both.as_bytes(), &[a.verifier().clone()]), Ok(TEXT));
        assert_eq!(
            verify_note(line_b_only(&line_b).as_bytes(), &[a.verifier().clone()]),
            Err(NoteError::NotSigned)
        );
        let bad_b = sign_note("another\n", &b).expect("signs")["another\n".len() + 1..].to_owned();
        let mixed = by_a + &bad_b;
        let known = [a.verifier().clone(), b.verifier().clone()];
        assert_eq!(verify_note(mixed.as_bytes(), &known), Err(NoteError::BadSignature));
        assert_eq!(verify_note(mixed.as_bytes(), &known[..1]), Ok(TEXT));
    }

    fn line_b_only(line: &str) -> String {
        format!("{TEXT}\n{line}")
    }

    #[test]
    fn a_note_of_several_signers_has_a_line_for_each_and_any_of_their_keys_opens_it() {
        let signers = [1, 2, 3].map(|seed| SeedSigner::new("log", seed));
        let note = sign_note_with_all(TEXT, signers.iter().map(|s| s as &dyn Signer)).expect("signs");
        let alone: String =
            signers.iter().map(|s| sign_note(TEXT, s).expect("signs").split_off(TEXT.len() + 1)).collect();
        assert_eq!(note, format!("{TEXT}\n{alone}"));
        for signer in &signers {
            assert_eq!(verify_note(note.as_bytes(), &[signer.verifier().clone()]), Ok(TEXT));
        }
        let stranger = SeedSigner::new("log", 4);
        let refused = verify_note(note.as_bytes(), &[stranger.verifier().clone()]);
        assert_eq!(refused, Err(NoteError::NotSigned));
    }

    #[test]
    fn malformed_notes_are_refused() {
        let signer = SeedSigner::new("log", 1);
        let note = sign_note(TEXT, &signer).expect("signs");
        let line = &note[TEXT.len() + 1..];
        let malformed = [
            TEXT.to_owned(),
            format!("{TEXT}\n"),
            note.trim_end().to_owned(),
            note.replacen("\u{2014} ", "- ", 1),
            note.replacen("\u{2014} log ", "\u{2014} log+x ", 1),
            format!("{TEXT}\n{line}garbage\n"),
            format!("a\u{1}b\n\n{line}"),
            format!("{TEXT}\n\u{2014} log AAAA\n"),
            format!("{TEXT}\n\u{2014} log AAAAAAA*\n"),
        ];
        for text in malformed {
            assert_eq!(parse_note_unverified(text.as_bytes()), Err(NoteError::Malformed), "{text:?}");
        }
        assert_eq!(parse_note_unverified(b"\xff\n\n"), Err(NoteError::Malformed));
        let long = format!("{}\n{note}", "x".repeat(limits::NOTE_BYTES_MAX));
        assert_eq!(parse_note_unverified(long.as_bytes()), Err(NoteError::Malformed));
    }

    #[test]
    fn the_seventeenth_signature_is_refused() {
        let signer = SeedSigner::new("log", 1);
        let note = sign_note(TEXT, &signer).expect("signs");
        let line = &note[TEXT.len() + 1..];
        let with = |n: usize| format!("{TEXT}\n{}", line.repeat(n));
        let known = [signer.verifier().clone()];
        assert_eq!(verify_note(with(16).as_bytes(), &known), Ok(TEXT));
        assert_eq!(verify_note(with(17).as_bytes(), &known), Err(NoteError::TooManySignatures));
    }
}
