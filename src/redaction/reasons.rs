//! Reasons of policy as a leaf of a redacting route holds them.

use crate::canonical::json;
use crate::limits;
use crate::model::{Json, PolicyReason};

/// In the place of a code that repeats a redacted value.
const WITHHELD: &str = "redacted";

/// The codes alone. A message or a detail may be made of any part of the input, and whether it is cannot be seen
/// from the text: a short value may stand in any of them by chance, and leaving out only those would tell which.
///
/// A code that holds a redacted text of at least [`limits::REDACTED_TEXT_BYTES_MIN`] bytes becomes `redacted`.
/// A replay with all disclosures makes the same list from what it finds.
pub fn reasons_as_written(reasons: &[PolicyReason], withheld: &[Json]) -> Vec<PolicyReason> {
    let longest = reasons.iter().map(|reason| reason.code.len()).max().unwrap_or_default();
    let mut texts = Vec::new();
    withheld.iter().for_each(|value| collect_texts(value, longest, &mut texts));
    let holds_one = |code: &str| texts.iter().any(|text| code.contains(text.as_str()));
    reasons
        .iter()
        .map(|reason| PolicyReason {
            code: if holds_one(&reason.code) { WITHHELD.into() } else { reason.code.clone() },
            detail: None,
            message: None,
        })
        .collect()
}

/// Texts and numbers that are long enough to be no accident and short enough to fit into a code.
fn collect_texts(value: &Json, longest: usize, texts: &mut Vec<String>) {
    let mut take = |text: &str| {
        if (limits::REDACTED_TEXT_BYTES_MIN..=longest).contains(&text.len()) {
            texts.push(text.to_owned());
        }
    };
    match value {
        Json::Null | Json::Bool(_) => {}
        Json::String(text) => take(text),
        Json::Number(_) => take(&String::from_utf8_lossy(&json::write(value))),
        Json::Array(items) => items.iter().for_each(|item| collect_texts(item, longest, texts)),
        Json::Object(object) => {
            object.members().iter().for_each(|(_, value)| collect_texts(value, longest, texts));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Number;

    #[test]
    fn messages_and_details_stay_out_and_so_do_codes_that_repeat_a_value() {
        let number = Json::Number(Number::new(4_111_111_111.0).expect("finite"));
        let withheld =
            [Json::object([("account", Json::Array(vec![number, Json::string("alice@example.org")]))])];
        for (code, written) in [
            ("amount_over", "amount_over"),
            ("card 4111111111 is blocked", "redacted"),
            ("no_alice@example.org", "redacted"),
            // A member's name is no value: codes are often made of names.
            ("account_closed", "account_closed"),
            ("alice", "alice"),
        ] {
            let detail = Some(Json::object([("limit", Json::string("5"))]));
            let reason = PolicyReason { code: code.into(), detail, message: Some("At most 5.".into()) };
            let expected = PolicyReason { code: written.into(), detail: None, message: None };
            assert_eq!(reasons_as_written(&[reason], &withheld), [expected], "{code}");
        }
        // Too short to mean anything: it would hide most codes.
        let short = [Json::string("a"), Json::string("over")];
        let reason = PolicyReason { code: "amount_over".into(), detail: None, message: None };
        assert_eq!(reasons_as_written(std::slice::from_ref(&reason), &short), [reason]);
    }
}
