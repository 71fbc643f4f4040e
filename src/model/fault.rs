//! Why a credential proved nobody: a closed list, for logs and metrics. Callers are told one reason for all of them,
//! so that an attacker does not learn how far a forged credential got.

use super::ReasonCode;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident, $text:literal;)*) => {
        /// Why nobody was proved.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum CredentialFault {
            $($(#[$doc])* $name,)*
        }

        impl CredentialFault {
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

faults! {
    /// Nothing was presented that the surface takes.
    Missing, "missing";
    /// More was presented than the surface takes together.
    Ambiguous, "ambiguous";
    /// Unknown, wrong, expired, or not for this surface.
    ApiKey, "api_key";

    /// None in the handshake, where one is required.
    CertificateMissing, "certificate_missing";
    /// No chain to a configured root.
    CertificateUntrusted, "certificate_untrusted";
    CertificateExpired, "certificate_expired";
    CertificateNotYetValid, "certificate_not_yet_valid";
    CertificateRevoked, "certificate_revoked";
    /// No list speaks for the issuer of a certificate in the chain.
    RevocationUnknown, "revocation_unknown";
    RevocationListExpired, "revocation_list_expired";
    /// Cannot be read, or our two parsers do not read the same.
    CertificateMalformed, "certificate_malformed";
    /// Wrong purpose, wrong signature, or anything else that verification refuses.
    CertificateRefused, "certificate_refused";

    /// No URI among the subject alternative names; the common name never counts.
    SpiffeMissing, "spiffe_missing";
    /// More than one URI.
    SpiffeSeveral, "spiffe_several";
    /// The one URI is not a SPIFFE ID of a workload.
    SpiffeMalformed, "spiffe_malformed";
    SpiffeTrustDomain, "spiffe_trust_domain";
    SpiffePath, "spiffe_path";

    /// A certificate without its token, where both are required.
    TokenMissing, "token_missing";
    /// Not three parts of base64url, or not strict JSON inside.
    TokenMalformed, "token_malformed";
    TokenTooLarge, "token_too_large";
    /// `alg` is not one that is taken, or not the one of the key.
    TokenAlgorithm, "token_algorithm";
    /// `crit` is there: no extension is understood.
    TokenCritical, "token_critical";
    /// `typ` is absent, or not one that is taken.
    TokenType, "token_type";
    /// `kid` names no key, or is absent where there is more than one key.
    TokenKeyUnknown, "token_key_unknown";
    /// The key set could not be fetched yet.
    TokenKeysUnavailable, "token_keys_unavailable";
    /// The key set could not be fetched for too long.
    TokenKeysStale, "token_keys_stale";
    TokenSignature, "token_signature";
    TokenIssuer, "token_issuer";
    TokenAudience, "token_audience";
    /// `exp` is absent or not a whole number of seconds.
    TokenExpiry, "token_expiry";
    TokenExpired, "token_expired";
    /// `nbf` is ahead, or not a whole number.
    TokenNotYetValid, "token_not_yet_valid";
    /// `iat` is ahead, too long ago, absent where an age is bounded, or not a whole number.
    TokenIssuedAt, "token_issued_at";
    /// `sub` is absent, or makes no actor id.
    TokenSubject, "token_subject";
    /// A claim has a name that is reserved.
    TokenClaims, "token_claims";
    /// Not bound to a certificate, where that is required.
    TokenUnbound, "token_unbound";
    /// Bound to something that was not presented.
    TokenBoundElsewhere, "token_bound_elsewhere";
}

impl CredentialFault {
    /// What the caller is told. One code for everything that was presented and is wrong.
    pub const fn code(self) -> ReasonCode {
        match self {
            Self::Missing => ReasonCode::CredentialMissing,
            Self::Ambiguous => ReasonCode::CredentialAmbiguous,
            Self::ApiKey
            | Self::CertificateMissing
            | Self::CertificateUntrusted
            | Self::CertificateExpired
            | Self::CertificateNotYetValid
            | Self::CertificateRevoked
            | Self::RevocationUnknown
            | Self::RevocationListExpired
            | Self::CertificateMalformed
            | Self::CertificateRefused
            | Self::SpiffeMissing
            | Self::SpiffeSeveral
            | Self::SpiffeMalformed
            | Self::SpiffeTrustDomain
            | Self::SpiffePath
            | Self::TokenMissing
            | Self::TokenMalformed
            | Self::TokenTooLarge
            | Self::TokenAlgorithm
            | Self::TokenCritical
            | Self::TokenType
            | Self::TokenKeyUnknown
            | Self::TokenKeysUnavailable
            | Self::TokenKeysStale
            | Self::TokenSignature
            | Self::TokenIssuer
            | Self::TokenAudience
            | Self::TokenExpiry
            | Self::TokenExpired
            | Self::TokenNotYetValid
            | Self::TokenIssuedAt
            | Self::TokenSubject
            | Self::TokenClaims
            | Self::TokenUnbound
            | Self::TokenBoundElsewhere => ReasonCode::CredentialInvalid,
        }
    }
}

impl std::fmt::Display for CredentialFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ReasonClass;
    use std::collections::BTreeSet;

    #[test]
    fn every_fault_has_its_own_word_and_a_code_of_nobody_proved() {
        let words: BTreeSet<_> = CredentialFault::ALL.iter().map(|fault| fault.as_str()).collect();
        assert_eq!(words.len(), CredentialFault::ALL.len());
        for fault in CredentialFault::ALL {
            assert_eq!(fault.code().class(), ReasonClass::Unauthenticated, "{fault}");
        }
    }
}
