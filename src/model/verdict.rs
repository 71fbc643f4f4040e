//! What can be decided, and what can have become of it.

use serde::{Deserialize, Serialize};

/// The five verdicts. Only `Permit` lets bytes leave; there is no default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Decision {
    Permit,
    Deny,
    Silence,
    Escalate,
    Quarantine,
}

impl Decision {
    pub const ALL: [Decision; 5] =
        [Self::Permit, Self::Deny, Self::Silence, Self::Escalate, Self::Quarantine];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permit => "PERMIT",
            Self::Deny => "DENY",
            Self::Silence => "SILENCE",
            Self::Escalate => "ESCALATE",
            Self::Quarantine => "QUARANTINE",
        }
    }
}

/// What became of a permitted request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeStatus {
    /// No byte of it left.
    NotSent,
    /// The upstream answered 2xx or 3xx and the answer was received whole.
    Confirmed,
    /// The upstream answered 4xx.
    Failed,
    /// Bytes may have left and the truth is not known: 5xx, cut, timed out, crashed.
    Indeterminate,
}

impl OutcomeStatus {
    pub const ALL: [OutcomeStatus; 4] = [Self::NotSent, Self::Confirmed, Self::Failed, Self::Indeterminate];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotSent => "not_sent",
            Self::Confirmed => "confirmed",
            Self::Failed => "failed",
            Self::Indeterminate => "indeterminate",
        }
    }

    /// The outcome that a whole final answer with this status code stands for.
    pub const fn of_whole_answer(status_code: u16) -> Self {
        match status_code {
            200..=399 => Self::Confirmed,
            400..=499 => Self::Failed,
            _ => Self::Indeterminate,
        }
    }
}

/// Who vouches for an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settled {
    Gateway,
    Operator,
    UpstreamLog,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_agree_with_serde() {
        for d in Decision::ALL {
            assert_eq!(serde_json::to_string(&d).expect("plain"), format!("\"{}\"", d.as_str()));
        }
        for o in OutcomeStatus::ALL {
            assert_eq!(serde_json::to_string(&o).expect("plain"), format!("\"{}\"", o.as_str()));
        }
    }

    #[test]
    fn only_a_2xx_or_3xx_confirms() {
        let of = OutcomeStatus::of_whole_answer;
        assert_eq!(
            [of(199), of(200), of(399)],
            [OutcomeStatus::Indeterminate, OutcomeStatus::Confirmed, OutcomeStatus::Confirmed]
        );
        assert_eq!(
            [of(400), of(499), of(500)],
            [OutcomeStatus::Failed, OutcomeStatus::Failed, OutcomeStatus::Indeterminate]
        );
    }
}
