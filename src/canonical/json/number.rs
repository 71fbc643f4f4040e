//! Numbers: a decimal is taken only if RFC 8785 keeps its value.

use std::io::Write as _;

use crate::model::Number;

/// Shortest decimals of doubles have at most this many digits.
const DIGITS_MAX: usize = 17;
/// Every whole number of so many digits is a double, and prints as itself.
const EXACT_DIGITS: usize = 15;

/// `None` if the number's decimal value differs from the decimal value of its RFC 8785 form.
/// The lexeme is a number of the JSON grammar.
pub(super) fn read(lexeme: &str) -> Option<Number> {
    let unsigned = lexeme.strip_prefix('-').unwrap_or(lexeme);
    if unsigned.len() <= EXACT_DIGITS
        && let Ok(whole) = lexeme.parse::<i64>()
    {
        return Number::new(whole as f64);
    }
    let exact = Decimal::of(lexeme)?;
    let number = Number::new(lexeme.parse().ok()?)?;
    (Decimal::shortest(number) == exact).then_some(number)
}

/// As ECMAScript's `Number::toString` prints it (RFC 8785 section 3.2.2.3).
pub(super) fn write(number: Number, out: &mut Vec<u8>) {
    if let Some(whole) = number.as_exact_i64() {
        write!(out, "{whole}").expect("a vector takes every write");
        return;
    }
    if number.as_f64() < 0.0 {
        out.push(b'-');
    }
    let decimal = Decimal::shortest(number);
    let (digits, count, point) = (decimal.digits(), decimal.count as i64, decimal.exponent);
    let zeros = |out: &mut Vec<u8>, n: i64| (0..n).for_each(|_| out.push(b'0'));
    if count <= point && point <= 21 {
        out.extend_from_slice(digits);
        zeros(out, point - count);
    } else if 0 < point && point <= 21 {
        let (whole, fraction) = digits.split_at(point as usize);
        out.extend_from_slice(whole);
        out.push(b'.');
        out.extend_from_slice(fraction);
    } else if -6 < point && point <= 0 {
        out.extend_from_slice(b"0.");
        zeros(out, -point);
        out.extend_from_slice(digits);
    } else {
        let (first, rest) = digits.split_at(1);
        out.extend_from_slice(first);
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest);
        }
        write!(out, "e{:+}", point - 1).expect("a vector takes every write");
    }
}

/// The magnitude 0.DIGITS x 10^exponent: no zero at either end of the digits, so one form for each value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decimal {
    /// ASCII; zero has none.
    digits: [u8; DIGITS_MAX],
    count: usize,
    exponent: i64,
}

impl Decimal {
    /// Of a decimal text; `None` if it has more significant digits than any shortest form.
    fn of(text: &str) -> Option<Self> {
        let mut decimal = Self { digits: [b'0'; DIGITS_MAX], count: 0, exponent: 0 };
        // Zeros are written when a digit follows: `digits` holds zeros already, so counting them is enough.
        let (mut zeros, mut in_fraction) = (0, false);
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, ""));
        for byte in mantissa.bytes() {
            match byte {
                b'.' => in_fraction = true,
                b'0' if decimal.count == 0 => decimal.exponent -= i64::from(in_fraction),
                b'0'..=b'9' => {
                    decimal.exponent += i64::from(!in_fraction);
                    if byte == b'0' {
                        zeros += 1;
                        continue;
                    }
                    *decimal.digits.get_mut(decimal.count + zeros)? = byte;
                    decimal.count += zeros + 1;
                    zeros = 0;
                }
                _ => {}
            }
        }
        if decimal.count == 0 {
            decimal.exponent = 0;
            return Some(decimal);
        }
        let magnitude = exponent.bytes().filter(u8::is_ascii_digit).fold(0_i64, |sum, digit| {
            // Saturated is far outside of every double, and so equal to no shortest form.
            sum.saturating_mul(10).saturating_add(i64::from(digit - b'0'))
        });
        let shift = if exponent.starts_with('-') { -magnitude } else { magnitude };
        decimal.exponent = decimal.exponent.saturating_add(shift);
        Some(decimal)
    }

    /// The shortest decimal that reads back as the number, and of those the nearest to it.
    fn shortest(number: Number) -> Self {
        let mut buffer = zmij::Buffer::new();
        let text = buffer.format_finite(number.as_f64());
        Self::of(text).expect("a shortest form has at most 17 digits")
    }

    fn digits(&self) -> &[u8] {
        &self.digits[..self.count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(lexeme: &str) -> Option<String> {
        let mut out = Vec::new();
        write(read(lexeme)?, &mut out);
        Some(String::from_utf8(out).expect("ASCII"))
    }

    #[test]
    fn numbers_print_as_ecmascript_prints_them() {
        // RFC 8785 appendix B, and the borders between the four layouts.
        for (lexeme, printed) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.0e5", "0"),
            ("0e999999999999999999999", "0"),
            ("0.10", "0.1"),
            ("1.0", "1"),
            ("-12.50", "-12.5"),
            ("100", "100"),
            ("1e2", "100"),
            ("1E+2", "100"),
            ("123456789012345", "123456789012345"),
            ("999999999999999", "999999999999999"),
            ("9007199254740992", "9007199254740992"),
            ("-9007199254740992", "-9007199254740992"),
            ("9007199254740994", "9007199254740994"),
            ("100000000000000000000", "100000000000000000000"),
            ("1e20", "100000000000000000000"),
            ("123456789e12", "123456789000000000000"),
            ("1e21", "1e+21"),
            ("1.5e21", "1.5e+21"),
            ("1.5e300", "1.5e+300"),
            ("123456.789", "123456.789"),
            ("12345678901234567e4", "123456789012345670000"),
            ("0.1", "0.1"),
            ("0.000001", "0.000001"),
            ("0.0000123", "0.0000123"),
            ("0.0000001", "1e-7"),
            ("-1.23e-7", "-1.23e-7"),
            ("4.5", "4.5"),
            ("5e-324", "5e-324"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("295147905179352830000", "295147905179352830000"),
            ("333333333.3333332", "333333333.3333332"),
            ("1.00000000000000000000000000000000", "1"),
            ("0.000000000000000000000000000000000000001e39", "1"),
            // Half-way between two shortest decimals: the even one.
            ("2044857308941158.2", "2044857308941158.2"),
        ] {
            assert_eq!(through(lexeme).as_deref(), Some(printed), "{lexeme}");
        }
    }

    #[test]
    fn a_number_that_would_change_its_value_is_refused() {
        for lexeme in [
            "9007199254740993",
            "-9007199254740993",
            "1000000000000000128.5",
            "1e400",
            "-1e309",
            "1e-400",
            "4e-324",
            "0.1000000000000000055",
            "0.1000000000000000055511151231257827021181583404541015625",
            "333333333.33333329",
            "2044857308941158.3",
            "12345678901234567890",
            "295147905179352825856",
            "1e99999999999999999999999999",
            "1e-99999999999999999999999999",
        ] {
            assert_eq!(through(lexeme), None, "{lexeme}");
        }
    }
}
