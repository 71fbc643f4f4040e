//! What a request would draw on the budgets of its surface.
//!
//! In: the rules that `config` read, the policy input without context and time, and the time. Out: one [`Draw`] for
//! each rule, or why there is none: then nothing can be permitted. Amounts are decimals of at most 28 digits, taken
//! exactly or not at all; there is no float on the way. What counts until when is part of the draw: the end of the
//! calendar window in its zone, or of the sliding one.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{
    DateTime, Datelike, Days, MappedLocalTime, Months, NaiveDate, NaiveDateTime, Offset, TimeZone, Utc,
};
use chrono_tz::Tz;
use rust_decimal::Decimal;

use super::state::Draw;
use crate::canonical::json;
use crate::clock::WallTime;
use crate::limits;
use crate::model::{ActionName, BudgetName, Digest, Json, Number, unescape_pointer};

/// A counter that a surface declares.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetRule {
    pub name: BudgetName,
    /// Requests with equal values there draw on the same sum. None: all requests of the surface.
    pub key: Vec<InputPointer>,
    pub amount: Amount,
    pub window: Window,
    /// Shown to people: `EUR`, `calls`.
    pub unit: Arc<str>,
    /// Requests with another action draw nothing, and their policy is not told of this budget. None: every action.
    pub actions: Option<BTreeSet<ActionName>>,
}

impl BudgetRule {
    /// Whether requests with this action draw on it.
    pub fn is_of(&self, action: &str) -> bool {
        self.actions.as_ref().is_none_or(|actions| actions.iter().any(|own| own.as_str() == action))
    }
}

/// What one request draws.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Amount {
    /// The same for each.
    Fixed(Decimal),
    /// A number there, or a string that is a decimal.
    At(InputPointer),
}

/// How long what was drawn counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Window {
    Calendar {
        unit: CalendarUnit,
        zone: Tz,
    },
    /// At least this long, and at most a [`limits::BUDGET_WINDOW_STEPS`]th of it longer.
    Sliding(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalendarUnit {
    Hour,
    Day,
    /// From Monday.
    Week,
    Month,
}

/// A place in the policy input that a request alone determines (RFC 6901): below `/surface`, `/action`, `/actor`,
/// `/request` or `/idempotency_key`.
#[derive(Clone, PartialEq, Eq)]
pub struct InputPointer {
    text: Arc<str>,
    steps: Vec<Arc<str>>,
}

/// Why a text is no such pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidInputPointer {
    #[error("a pointer begins with `/`, and `~` in it is written `~0`, `/` is `~1` (RFC 6901)")]
    Form,
    #[error(
        "the pointer of a budget begins with `/surface`, `/action`, `/actor`, `/request` or `/idempotency_key`"
    )]
    Root,
    #[error(
        "a pointer has at most {} steps and {} bytes",
        limits::BUDGET_POINTER_STEPS_MAX,
        limits::BUDGET_POINTER_BYTES_MAX
    )]
    Long,
}

impl FromStr for InputPointer {
    type Err = InvalidInputPointer;

    fn from_str(text: &str) -> Result<Self, InvalidInputPointer> {
        if text.len() > limits::BUDGET_POINTER_BYTES_MAX {
            return Err(InvalidInputPointer::Long);
        }
        let steps =
            unescape_pointer(text).filter(|steps| !steps.is_empty()).ok_or(InvalidInputPointer::Form)?;
        if steps.len() > limits::BUDGET_POINTER_STEPS_MAX {
            return Err(InvalidInputPointer::Long);
        }
        match &*steps[0] {
            "surface" | "action" | "actor" | "request" | "idempotency_key" => {
                Ok(Self { text: text.into(), steps })
            }
            _ => Err(InvalidInputPointer::Root),
        }
    }
}

impl InputPointer {
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What is there.
    pub fn find<'j>(&self, tree: &'j Json) -> Option<&'j Json> {
        tree.at(&self.steps)
    }
}

impl fmt::Debug for InputPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl fmt::Display for InputPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Nothing can be drawn, so nothing can be permitted. Names no value of the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    #[error("budget {budget}: there is nothing at {pointer}")]
    Missing { budget: BudgetName, pointer: InputPointer },
    #[error("budget {budget}: what is at {pointer} is no text, number or truth value, as a key must be")]
    NotAKey { budget: BudgetName, pointer: InputPointer },
    #[error(
        "budget {budget}: what is at {pointer} is no decimal of at most 28 digits, {} after the point",
        limits::BUDGET_FRACTION_DIGITS_MAX
    )]
    NotDecimal { budget: BudgetName, pointer: InputPointer },
    #[error("budget {budget}: what is at {pointer} is negative")]
    Negative { budget: BudgetName, pointer: InputPointer },
    #[error("budget {budget}: its window has no end that can be written")]
    NoEnd { budget: BudgetName },
}

/// What a request draws on each of these that is of its action, in their order. `subject` is the policy input without `context` and `time`.
pub fn draws(rules: &[BudgetRule], subject: &Json, now: WallTime) -> Result<Vec<Draw>, BudgetError> {
    // A subject without an action is a mistake of ours, and draws on everything.
    let action = subject.as_object().and_then(|s| s.member("action")).and_then(Json::as_str);
    let is_of = |rule: &&BudgetRule| action.is_none_or(|action| rule.is_of(action));
    rules.iter().filter(is_of).map(|rule| draw(rule, subject, now)).collect()
}

fn draw(rule: &BudgetRule, subject: &Json, now: WallTime) -> Result<Draw, BudgetError> {
    let budget = || rule.name.clone();
    let values = rule.key.iter().map(|pointer| {
        let pointer = || pointer.clone();
        match pointer().find(subject) {
            Some(value @ (Json::Bool(_) | Json::Number(_) | Json::String(_))) => Ok(value.clone()),
            Some(Json::Null | Json::Array(_) | Json::Object(_)) => {
                Err(BudgetError::NotAKey { budget: budget(), pointer: pointer() })
            }
            None => Err(BudgetError::Missing { budget: budget(), pointer: pointer() }),
        }
    });
    let key = Digest::of(&json::write(&Json::Array(values.collect::<Result<_, _>>()?)));
    let amount = match &rule.amount {
        Amount::Fixed(amount) => *amount,
        Amount::At(pointer) => amount_at(rule, pointer, subject)?,
    };
    let until = rule.window.end(now).ok_or_else(|| BudgetError::NoEnd { budget: budget() })?;
    Ok(Draw { budget: budget(), key, amount, until })
}

fn amount_at(rule: &BudgetRule, pointer: &InputPointer, subject: &Json) -> Result<Decimal, BudgetError> {
    let (budget, at) = (|| rule.name.clone(), || pointer.clone());
    let not_decimal = || BudgetError::NotDecimal { budget: budget(), pointer: at() };
    let amount = match pointer.find(subject) {
        Some(Json::String(text)) => parse_amount(text).ok_or_else(not_decimal)?,
        Some(Json::Number(number)) => exact_decimal(*number).ok_or_else(not_decimal)?,
        Some(Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_)) => return Err(not_decimal()),
        None => return Err(BudgetError::Missing { budget: budget(), pointer: at() }),
    };
    if amount.is_sign_negative() {
        return Err(BudgetError::Negative { budget: budget(), pointer: at() });
    }
    let shortest = || Some(amount.normalize()).filter(|d| d.scale() <= limits::BUDGET_FRACTION_DIGITS_MAX);
    match amount.scale() <= limits::BUDGET_FRACTION_DIGITS_MAX {
        true => Ok(amount),
        false => shortest().ok_or_else(not_decimal),
    }
}

/// A decimal as JSON writes a number without exponent: no plus sign, no zeros in front, digits on both sides of the
/// point. `None` for any other text, and past 28 digits.
pub fn parse_amount(text: &str) -> Option<Decimal> {
    (!text.contains(['e', 'E'])).then(|| parse_exact(text)).flatten()
}

/// The decimal that RFC 8785 writes for the number.
fn exact_decimal(number: Number) -> Option<Decimal> {
    let text = json::write(&Json::Number(number));
    parse_exact(std::str::from_utf8(&text).ok()?)
}

/// The decimal as a JSON number, if RFC 8785 writes that number as exactly this decimal.
pub fn exact_number(decimal: Decimal) -> Option<Number> {
    let number = Number::new(decimal.to_string().parse().ok()?)?;
    (exact_decimal(number) == Some(decimal)).then_some(number)
}

/// JSON's grammar of numbers; `None` if the value is not exactly a decimal of at most 28 digits.
fn parse_exact(text: &str) -> Option<Decimal> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (is_negative, unsigned) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (whole, fraction) = match unsigned.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (unsigned, ""),
    };
    let is_plain = whole == "0" || (!whole.is_empty() && !whole.starts_with('0'));
    if !is_plain || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let magnitude = whole.bytes().chain(fraction.bytes()).try_fold(0i128, |sum, digit| {
        sum.checked_mul(10)?.checked_add(i128::from(digit - b'0')).filter(|sum| *sum <= MANTISSA_MAX)
    })?;
    let scale = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    let (magnitude, scale) = match u32::try_from(scale) {
        Ok(scale) => (magnitude, scale),
        Err(_) => (scaled(magnitude, scale.unsigned_abs())?, 0),
    };
    let signed = if is_negative { -magnitude } else { magnitude };
    let decimal = Decimal::try_from_i128_with_scale(signed, scale).ok()?;
    // Minus zero is refused with the negative ones.
    Some(if is_negative && decimal.is_zero() { -decimal } else { decimal })
}

/// What a decimal holds: 96 bits.
const MANTISSA_MAX: i128 = (1 << 96) - 1;

fn scaled(mantissa: i128, by: u32) -> Option<i128> {
    mantissa.checked_mul(10i128.checked_pow(by)?)
}

/// The exact sum; `None` if a decimal cannot hold it. Keeps the longer fraction, so that what is taken off again later
/// leaves an exact rest as well.
pub fn add(a: Decimal, b: Decimal) -> Option<Decimal> {
    combine(a, b, i128::checked_add)
}

/// The exact difference; `None` if a decimal cannot hold it, or it is below zero.
pub fn subtract(a: Decimal, b: Decimal) -> Option<Decimal> {
    combine(a, b, i128::checked_sub)
}

/// The result from zero up.
fn combine(a: Decimal, b: Decimal, with: fn(i128, i128) -> Option<i128>) -> Option<Decimal> {
    let scale = a.scale().max(b.scale());
    let mantissa = |d: Decimal| scaled(d.mantissa(), scale - d.scale());
    let result = with(mantissa(a)?, mantissa(b)?)?;
    let fits = (0..=MANTISSA_MAX).contains(&result);
    fits.then(|| Decimal::try_from_i128_with_scale(result, scale).ok()).flatten()
}

impl Window {
    /// From when on what is drawn now counts no more; `None` past the times that can be written.
    fn end(&self, now: WallTime) -> Option<WallTime> {
        match self {
            Self::Sliding(length) => sliding_end(*length, now),
            Self::Calendar { unit: CalendarUnit::Hour, zone } => hour_end(*zone, now),
            Self::Calendar { unit: CalendarUnit::Day, zone } => {
                date_end(*zone, now, |date| date.checked_add_days(Days::new(1)))
            }
            Self::Calendar { unit: CalendarUnit::Week, zone } => date_end(*zone, now, |date| {
                date.checked_add_days(Days::new(7 - u64::from(date.weekday().num_days_from_monday())))
            }),
            Self::Calendar { unit: CalendarUnit::Month, zone } => {
                date_end(*zone, now, |date| date.with_day(1)?.checked_add_months(Months::new(1)))
            }
        }
    }
}

/// Rounded up to a step of the window, so that one key has few ends. Whole microseconds, as leaves have.
fn sliding_end(length: Duration, now: WallTime) -> Option<WallTime> {
    let length_us = u64::try_from(length.as_micros()).ok()?;
    let step_us = (length_us / limits::BUDGET_WINDOW_STEPS).max(1);
    let end_us = now.unix_ns().div_ceil(1_000).checked_add(length_us)?.checked_next_multiple_of(step_us)?;
    end_us.checked_mul(1_000).map(WallTime::from_unix_ns)
}

fn utc(at: WallTime) -> Option<DateTime<Utc>> {
    // u64 nanoseconds end in 2554.
    let (seconds, nanoseconds) = (at.unix_ns() / 1_000_000_000, at.unix_ns() % 1_000_000_000);
    DateTime::from_timestamp(seconds as i64, nanoseconds as u32)
}

fn wall(unix_seconds: i64) -> Option<WallTime> {
    u64::try_from(unix_seconds).ok()?.checked_mul(1_000_000_000).map(WallTime::from_unix_ns)
}

/// The next full hour by the offset of now: never longer than an hour, also where clocks change.
fn hour_end(zone: Tz, now: WallTime) -> Option<WallTime> {
    let now = utc(now)?;
    let offset = i64::from(zone.offset_from_utc_datetime(&now.naive_utc()).fix().local_minus_utc());
    let local = now.timestamp() + offset;
    wall((local.div_euclid(3_600) + 1) * 3_600 - offset)
}

/// Where the date begins that follows the one of now.
fn date_end(zone: Tz, now: WallTime, next: impl Fn(NaiveDate) -> Option<NaiveDate>) -> Option<WallTime> {
    let now = utc(now)?;
    let midnight = next(now.with_timezone(&zone).date_naive())?.and_hms_opt(0, 0, 0)?;
    let begins = match zone.from_local_datetime(&midnight) {
        MappedLocalTime::Single(at) => at.timestamp(),
        // Clocks go back over midnight: it comes twice, and the first may be over.
        MappedLocalTime::Ambiguous(first, second) => match first.timestamp() > now.timestamp() {
            true => first.timestamp(),
            false => second.timestamp(),
        },
        // Clocks go forward over midnight.
        MappedLocalTime::None => after_gap(zone, midnight),
    };
    wall(begins)
}

/// The first second at which clocks show the time that they pass over, or a later one. A gap is a day at most.
fn after_gap(zone: Tz, skipped: NaiveDateTime) -> i64 {
    const HALF_SPAN_SECONDS: i64 = 36 * 3_600;
    let middle = skipped.and_utc().timestamp();
    let is_over = |at: i64| {
        DateTime::from_timestamp(at, 0).is_none_or(|at| at.with_timezone(&zone).naive_local() >= skipped)
    };
    let (mut before, mut over) = (middle - HALF_SPAN_SECONDS, middle + HALF_SPAN_SECONDS);
    while over - before > 1 {
        let at = before + (over - before) / 2;
        if is_over(at) { over = at } else { before = at }
    }
    over
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::json::{Bounds, parse};
    use proptest::prelude::*;

    fn at(text: &str) -> WallTime {
        WallTime::parse_rfc3339(text).expect("a time")
    }

    fn decimal(text: &str) -> Decimal {
        Decimal::from_str_exact(text).expect("a decimal")
    }

    fn pointer(text: &str) -> InputPointer {
        text.parse().expect("a pointer")
    }

    fn subject(body: &str) -> Json {
        let text =
            format!(r#"{{"actor":{{"id":"agent"}},"request":{{"body":{body}}},"surface":"payments"}}"#);
        parse(text.as_bytes(), Bounds::BODY).expect("JSON")
    }

    fn rule(key: &[&str], amount: Amount) -> BudgetRule {
        BudgetRule {
            name: "spend".parse().expect("a name"),
            actions: None,
            key: key.iter().map(|text| pointer(text)).collect(),
            amount,
            window: Window::Sliding(Duration::from_secs(3_600)),
            unit: "EUR".into(),
        }
    }

    fn drawn(body: &str) -> Result<Decimal, BudgetError> {
        let rule = rule(&[], Amount::At(pointer("/request/body/amount")));
        draws(&[rule], &subject(body), at("2026-01-01T00:00:00Z")).map(|draws| draws[0].amount)
    }

    #[test]
    fn amounts_are_taken_exactly_from_texts_and_numbers() {
        for (body, amount) in [
            (r#"{"amount":"10.50"}"#, "10.50"),
            (r#"{"amount":"0"}"#, "0"),
            (r#"{"amount":"0.1"}"#, "0.1"),
            (r#"{"amount":0.1}"#, "0.1"),
            (r#"{"amount":1e3}"#, "1000"),
            (r#"{"amount":1e21}"#, "1000000000000000000000"),
            (r#"{"amount":1.5e-7}"#, "0.00000015"),
            (r#"{"amount":9007199254740991}"#, "9007199254740991"),
            (r#"{"amount":"79228162514264337593543950335"}"#, "79228162514264337593543950335"),
            (r#"{"amount":"1.5000000000000"}"#, "1.5"),
        ] {
            let amount = decimal(amount);
            let drawn = drawn(body).expect("an amount");
            assert_eq!((drawn, drawn.scale()), (amount, amount.scale()), "{body}");
        }
    }

    #[test]
    fn what_is_no_amount_names_the_budget_and_the_place() {
        let names = |error: BudgetError| {
            let text = error.to_string();
            assert!(text.contains("spend") && text.contains("/request/body/amount"), "{text}");
            error
        };
        for text in [
            "",
            " 1",
            "1 ",
            "+1",
            ".5",
            "5.",
            "1e3",
            "0x1",
            "1_000",
            "01",
            "--1",
            "1,5",
            "NaN",
            "\u{661}",
            "79228162514264337593543950336",
            "0.0000000001",
            "1.2.3",
            "-",
        ] {
            let error = drawn(&format!(r#"{{"amount":"{text}"}}"#)).map_err(names);
            assert!(matches!(error, Err(BudgetError::NotDecimal { .. })), "{text}: {error:?}");
        }
        for value in ["null", "true", "[1]", "{}", "1e-10", "1e29"] {
            let error = drawn(&format!(r#"{{"amount":{value}}}"#)).map_err(names);
            assert!(matches!(error, Err(BudgetError::NotDecimal { .. })), "{value}: {error:?}");
        }
        for value in ["-1", "\"-1\"", "\"-0.01\"", "\"-0\""] {
            let error = drawn(&format!(r#"{{"amount":{value}}}"#)).map_err(names);
            assert!(matches!(error, Err(BudgetError::Negative { .. })), "{value}: {error:?}");
        }
        for body in ["{}", "[]", "1"] {
            assert!(matches!(drawn(body).map_err(names), Err(BudgetError::Missing { .. })), "{body}");
        }
    }

    #[test]
    fn requests_with_equal_key_values_draw_on_one_sum() {
        let key = |pointers: &[&str], body: &str| {
            let rule = rule(pointers, Amount::Fixed(Decimal::ONE));
            draws(&[rule], &subject(body), at("2026-01-01T00:00:00Z")).map(|draws| draws[0].key)
        };
        let of = |text: &str| Ok(Digest::of(text.as_bytes()));
        assert_eq!(key(&[], "{}"), of("[]"));
        assert_eq!(key(&["/actor/id", "/surface"], "{}"), of(r#"["agent","payments"]"#));
        assert_eq!(key(&["/request/body/to/1"], r#"{"to":["a",7]}"#), of("[7]"));
        assert_ne!(key(&["/request/body/a"], r#"{"a":"7"}"#), key(&["/request/body/a"], r#"{"a":7}"#));
        let missing = key(&["/request/body/to/01"], r#"{"to":["a","b"]}"#);
        assert!(matches!(missing, Err(BudgetError::Missing { .. })), "{missing:?}");
        for body in [r#"{"a":null}"#, r#"{"a":[]}"#, r#"{"a":{}}"#] {
            let error = key(&["/request/body/a"], body);
            assert!(matches!(error, Err(BudgetError::NotAKey { .. })), "{body}: {error:?}");
        }
    }

    #[test]
    fn a_pointer_stays_in_what_the_request_determines() {
        for text in ["/surface", "/actor/id", "/actor/claims/sub", "/request/body/a~1b", "/idempotency_key"] {
            assert_eq!(pointer(text).as_str(), text);
        }
        for text in ["/context/approvals", "/time/unix_ns", "/", "/requests"] {
            assert_eq!(text.parse::<InputPointer>(), Err(InvalidInputPointer::Root), "{text}");
        }
        for text in ["", "request", "/request/~2"] {
            assert_eq!(text.parse::<InputPointer>(), Err(InvalidInputPointer::Form), "{text}");
        }
        let long = format!("/request{}", "/a".repeat(limits::BUDGET_POINTER_STEPS_MAX));
        assert_eq!(long.parse::<InputPointer>(), Err(InvalidInputPointer::Long));
        let wide = format!("/request/{}", "a".repeat(limits::BUDGET_POINTER_BYTES_MAX));
        assert_eq!(wide.parse::<InputPointer>(), Err(InvalidInputPointer::Long));
    }

    fn ends(unit: CalendarUnit, zone: Tz, now: &str, end: &str) {
        let window = Window::Calendar { unit, zone };
        assert_eq!(
            window.end(at(now)).map(WallTime::rfc3339),
            Some(at(end).rfc3339()),
            "{unit:?} {zone} {now}"
        );
    }

    #[test]
    fn calendar_windows_end_in_their_zone() {
        use CalendarUnit::{Day, Hour, Month, Week};
        use chrono_tz::{Asia::Kathmandu, Europe::Berlin, UTC};
        ends(Hour, UTC, "2026-03-01T10:00:00Z", "2026-03-01T11:00:00Z");
        ends(Hour, UTC, "2026-03-01T10:59:59.999999Z", "2026-03-01T11:00:00Z");
        ends(Hour, Kathmandu, "2026-03-01T10:20:00Z", "2026-03-01T11:15:00Z");
        ends(Day, UTC, "2026-12-31T23:59:59.999999Z", "2027-01-01T00:00:00Z");
        ends(Day, UTC, "2027-01-01T00:00:00Z", "2027-01-02T00:00:00Z");
        ends(Day, Berlin, "2026-01-15T22:59:59Z", "2026-01-15T23:00:00Z");
        ends(Day, Berlin, "2026-01-15T23:00:00Z", "2026-01-16T23:00:00Z");
        // 2026-11-22 is a Sunday.
        ends(Week, UTC, "2026-11-22T23:59:59Z", "2026-11-23T00:00:00Z");
        ends(Week, UTC, "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z");
        ends(Month, Berlin, "2026-01-31T12:00:00Z", "2026-01-31T23:00:00Z");
        ends(Month, Berlin, "2026-01-31T23:00:00Z", "2026-02-28T23:00:00Z");
        ends(Month, UTC, "2026-12-31T12:00:00Z", "2027-01-01T00:00:00Z");
    }

    #[test]
    fn windows_end_once_where_clocks_change() {
        use CalendarUnit::{Day, Hour, Month};
        use chrono_tz::{Africa::Cairo, America::Havana, Atlantic::Azores, Europe::Berlin, Pacific::Apia};
        // 23 and 25 hours.
        ends(Day, Berlin, "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
        ends(Day, Berlin, "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
        // The hour that comes twice is two hours.
        ends(Hour, Berlin, "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z");
        ends(Hour, Berlin, "2026-10-25T01:30:00Z", "2026-10-25T02:00:00Z");
        // Midnight is passed over: the day begins at one.
        ends(Day, Cairo, "2026-04-23T12:00:00Z", "2026-04-23T22:00:00Z");
        ends(Day, Havana, "2026-03-07T12:00:00Z", "2026-03-08T05:00:00Z");
        // Midnight comes twice: the day begins with the first, and the next with the next day.
        ends(Day, Azores, "2026-10-24T12:00:00Z", "2026-10-25T00:00:00Z");
        ends(Day, Azores, "2026-10-25T00:30:00Z", "2026-10-26T01:00:00Z");
        // A day that did not exist.
        ends(Day, Apia, "2011-12-30T09:59:59Z", "2011-12-30T10:00:00Z");
        ends(Month, Apia, "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z");
    }

    #[test]
    fn every_window_ends_after_now_and_within_its_length() {
        use CalendarUnit::{Day, Hour, Month, Week};
        let zones = [
            chrono_tz::UTC,
            chrono_tz::Europe::Berlin,
            chrono_tz::America::St_Johns,
            chrono_tz::Australia::Lord_Howe,
            chrono_tz::Pacific::Apia,
            chrono_tz::Africa::Cairo,
            chrono_tz::America::Sao_Paulo,
        ];
        proptest!(|(zone in prop::sample::select(zones.to_vec()), second in 1_000_000_000u64..2_500_000_000)| {
            let now = WallTime::from_unix_ns(second * 1_000_000_000 + 1);
            for (unit, hours_max) in [(Hour, 1), (Day, 50), (Week, 7 * 24 + 26), (Month, 31 * 24 + 26)] {
                let end = Window::Calendar { unit, zone }.end(now).expect("an end");
                prop_assert!(now < end, "{unit:?} {zone}");
                prop_assert!(end.unix_ns() - now.unix_ns() <= hours_max * 3_600_000_000_000, "{unit:?} {zone}");
            }
        });
    }

    #[test]
    fn a_sliding_window_ends_at_few_times_and_not_too_early() {
        let window = Window::Sliding(Duration::from_secs(3_600));
        let ends: Vec<u64> = (0..3_600)
            .map(|s| (1_790_000_000 + s) * 1_000_000_000)
            .map(|now| (now, window.end(WallTime::from_unix_ns(now)).expect("an end").unix_ns()))
            .inspect(|(now, end)| assert!((3_600..=3_660).contains(&((end - now) / 1_000_000_000))))
            .map(|(_, end)| end)
            .collect();
        assert!(ends.is_sorted());
        let mut distinct = ends;
        distinct.dedup();
        assert!(distinct.len() <= 61, "{}", distinct.len());
        assert_eq!(Window::Sliding(Duration::MAX).end(at("2026-01-01T00:00:00Z")), None);
    }

    #[test]
    fn a_sum_is_told_as_a_number_only_if_it_is_that_number() {
        for text in ["0", "0.1", "10.50", "9007199254740992", "123456789012.345", "1000000000000000000000"] {
            let number = exact_number(decimal(text)).unwrap_or_else(|| panic!("{text} is exact"));
            assert_eq!(number.as_f64(), text.parse::<f64>().expect("a number"));
        }
        for text in ["9007199254740993", "0.1234567890123456789", "100000000000000.001"] {
            assert_eq!(exact_number(decimal(text)), None, "{text}");
        }
    }

    #[test]
    fn sums_are_exact_or_there_are_none() {
        assert_eq!(add(decimal("0.1"), decimal("0.2")), Some(decimal("0.3")));
        assert_eq!(add(Decimal::MAX, Decimal::ONE), None);
        // rust_decimal alone would round this one.
        assert_eq!(add(Decimal::MAX, decimal("0.1")), None);
        assert_eq!(add(Decimal::MAX, decimal("0.0")), None, "no room for the fraction");
        assert_eq!(subtract(decimal("1"), decimal("1.5")), None, "below zero");
        let small = || (0i64..10_000_000, 0u32..10).prop_map(|(n, scale)| Decimal::new(n, scale));
        proptest!(|(a in small(), b in small(), c in small())| {
            let sum = add(add(a, b).expect("small"), c).expect("small");
            prop_assert_eq!(Some(sum), add(a, add(b, c).expect("small")));
            prop_assert_eq!(subtract(subtract(sum, b).expect("in it"), c), Some(a));
        });
    }
}
