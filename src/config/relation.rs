//! Comparisons in values: of numbers, texts and compatibility levels.
//!
//! Follows `tests/spec/main-cf.md`, section 3, postconf(5), "relational expressions", and Postfix 3.7.

use std::cmp::Ordering;

use super::error::{Error, bad, syntax};
use super::lines::{skip_space, split_where};
use crate::log::Shown;

/// The parts of a level after the first are smaller than this.
const LEVEL_PART: i64 = 1024;

type Accepts = fn(Ordering) -> bool;

const OPERATORS: [(&str, Accepts); 6] = [
    ("==", Ordering::is_eq),
    ("!=", Ordering::is_ne),
    ("<", Ordering::is_lt),
    ("<=", Ordering::is_le),
    (">=", Ordering::is_ge),
    (">", Ordering::is_gt),
];

pub(super) struct Operator {
    symbol: &'static str,
    accepts: Accepts,
    /// Whether compatibility levels are compared, and not numbers or texts.
    of_levels: bool,
}

/// Reads the operator at the start of `text`, which follows the operand `left`.
pub(super) fn operator<'t>(left: &[u8], text: &'t [u8]) -> Result<(Operator, &'t [u8]), Error> {
    let (word, after) = split_where(text, |b| b"<>!=?+-*/~&|%".contains(&b));
    let known = OPERATORS
        .iter()
        .find(|(symbol, _)| symbol.as_bytes() == word);
    let Some(&(symbol, accepts)) = known else {
        // The quotes are Postfix's.
        let what = r#""==" or "!="" or "<"" or "<="" or ">="" or ">" expected"#;
        return Err(syntax(what, &[left, b"}"].concat(), text));
    };
    let (suffix, after) = split_where(after, |b| b.is_ascii_alphanumeric());
    let of_levels = match suffix {
        b"" => false,
        b"level" => true,
        _ => {
            let suffix = Shown(suffix);
            let warning = format!("bad operator suffix at: \"...{symbol}>>>{suffix}\"");
            return Err(bad(warning));
        }
    };
    let operator = Operator {
        symbol,
        accepts,
        of_levels,
    };
    Ok((operator, after))
}

impl Operator {
    pub(super) fn symbol(&self) -> &'static str {
        self.symbol
    }

    pub(super) fn holds(&self, left: &[u8], right: &[u8]) -> Result<bool, Error> {
        let ordering = if self.of_levels {
            level_operand(left)?.cmp(&level_operand(right)?)
        } else if is_number(left) && is_number(right) {
            number(left)?.cmp(&number(right)?)
        } else {
            left.cmp(right)
        };
        Ok((self.accepts)(ordering))
    }
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

fn number(digits: &[u8]) -> Result<i64, Error> {
    match leading_number(digits) {
        Some((Some(number), _)) => Ok(number),
        _ => {
            let digits = Shown(digits);
            Err(Error::new(format!(
                "mac_exp_eval: bad conversion: {digits}"
            )))
        }
    }
}

fn level_operand(text: &[u8]) -> Result<i64, Error> {
    level(text).ok_or_else(|| bad(malformed_level(text)))
}

pub(super) fn malformed_level(text: &[u8]) -> String {
    format!("malformed compatibility level syntax: \"{}\"", Shown(text))
}

/// A compatibility level `major[.minor[.patch]]` as one number that compares in the same order.
pub(super) fn level(text: &[u8]) -> Option<i64> {
    let part = |text, limit| match leading_number(text)? {
        (Some(part), rest) if (0..limit).contains(&part) => Some((part, rest)),
        _ => None,
    };
    let (major, mut rest) = part(text, i64::MAX / (LEVEL_PART * LEVEL_PART) + 1)?;
    let mut level = major;
    for _ in 0..2 {
        let mut minor = 0;
        if let Some(text) = rest.strip_prefix(b".") {
            (minor, rest) = part(text, LEVEL_PART)?;
        }
        level = level * LEVEL_PART + minor;
    }
    rest.is_empty().then_some(level)
}

/// strtol(3) in base 10: skips whitespace, reads a sign and digits. `None` if there are no digits; a number of `None`
/// if it is out of range.
pub(super) fn leading_number(text: &[u8]) -> Option<(Option<i64>, &[u8])> {
    let text = skip_space(text);
    let (negative, digits) = match text.split_first() {
        Some((b'-', digits)) => (true, digits),
        Some((b'+', digits)) => (false, digits),
        _ => (false, text),
    };
    let (digits, rest) = split_where(digits, |b| b.is_ascii_digit());
    if digits.is_empty() {
        return None;
    }
    let number = digits.iter().try_fold(0_i64, |number, &b| {
        let digit = i64::from(b - b'0');
        let number = number.checked_mul(10)?;
        // The most negative number has no positive counterpart.
        if negative {
            number.checked_sub(digit)
        } else {
            number.checked_add(digit)
        }
    });
    Some((number, rest))
}
