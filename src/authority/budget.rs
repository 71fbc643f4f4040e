//! What a request would draw on the budgets of its surface.
//!
//! In: the rules that `config` read, the policy input without context and time, and the time. Out: one [`Draw`] for
//! each rule, or why there is none: then nothing can be permitted. Amounts are decimals of at most 28 digits, taken
//! exactly or not at all; there is no float on the way. What counts until when is part of the draw: the end of the
//! calendar window in its zone, or of the sliding one.

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
use crate::model::{BudgetName, Digest, Json, Number, unescape_pointer};

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
        self.steps.iter().try_fold(tree, |at, step| match at {
            Json::Object(object) => object.member(step),
            Json::Array(items) => items.get(index(step)?),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
        })
    }
}

/// RFC 6901 section 4: no leading zeros.
fn index(step: &str) -> Option<usize> {
    let plain = step.bytes().all(|b| b.is_ascii_digit()) && (step == "0" || !step.starts_with('0'));
    step.parse().ok().filter(|_| plain)
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

/// What a request draws on each of these, in their order. `subject` is the policy input without `context` and `time`.
pub fn draws(rules: &[BudgetRule], subject: &Json, now: WallTime) -> Result<Vec<Draw>, BudgetError> {
    rules.iter().map(|rule| draw(rule, subject, now)).collect()
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
