//! `regexp:FILE`, `regexp:{ {rule}, {rule} }`: POSIX regular expressions, of which the first that matches decides.
//!
//! `[!]/pattern/flags value`, `/p/flags!/q/flags value` for keys that match p and not q, and `if [!]/pattern/flags` ...
//! `endif` around rules. Any byte that is no letter or digit may replace the slash. Values are not expanded; but a rule
//! with a wrong value is skipped, as in Postfix. Follows regexp_table(5), and `tests/spec/client-access.md`, section
//! 4.2.

mod replacement;

#[cfg(test)]
mod tests;

use std::ffi::CString;

use super::rules::{Condition, Receiver, skipped};
use super::table::Keys;
use super::text::Reader;
use crate::config::lines::{is_space, trim};
use crate::log::Shown;
use crate::sys::regex::{Flags, Regex};

/// One or two expressions, which must all hold.
#[derive(Debug)]
pub(super) struct Expressions {
    first: Expression,
    second: Option<Expression>,
}

impl Condition for Expressions {
    const KIND: &'static str = "regexp";

    const KEYS: Keys = Keys::Pattern;

    /// What the C library makes of an expression takes kilobytes, and more in the first match: a process that is forked for
    /// each client would get pages of its own for all of it.
    const KEPT_AS_TEXT: bool = true;

    type Key = CString;

    type Index = ();

    fn key(key: &str) -> Result<Option<CString>, String> {
        CString::new(key)
            .map(Some)
            .map_err(|error| error.to_string())
    }

    /// Unlike Postfix, which goes on as if the rule did not match where the C library gives a match up, that is an error: it
    /// may be the rule that keeps a client out (`tests/spec/differences.md`, 20).
    fn holds(&self, key: &CString) -> Result<bool, String> {
        Ok(self.first.holds(key)?
            && match &self.second {
                Some(second) => second.holds(key)?,
                None => true,
            })
    }

    fn rule(
        rules: &mut impl Receiver<Expressions>,
        line: &[u8],
        reader: &mut Reader<'_>,
    ) -> Result<(), String> {
        let text = trim(line);
        let word = text.iter().take_while(|b| b.is_ascii_alphanumeric());
        let (word, rest) = text.split_at(word.count());
        if word.is_empty() {
            add_value(rules, rest, reader)
        } else if word.eq_ignore_ascii_case(b"if") {
            begin_if(rules, trim(rest), reader)
        } else if !word.eq_ignore_ascii_case(b"endif") {
            Err("ignoring unrecognized request".to_owned())
        } else if !rules.end_if() {
            Err("ignoring ENDIF without matching IF".to_owned())
        } else if !trim(rest).is_empty() {
            Err("ignoring extra text after ENDIF".to_owned())
        } else {
            Ok(())
        }
    }
}

#[derive(Debug)]
struct Expression {
    negated: bool,
    regex: Regex,
}

impl Expression {
    fn holds(&self, key: &CString) -> Result<bool, String> {
        Ok(self.regex.is_match(key)? != self.negated)
    }
}

/// A rule without the C library: patterns, each with its number of groups; value; the highest group in the value, if
/// the value is well-formed.
#[cfg(any(test, fuzzing))]
pub type Line<'a> = (Vec<(&'a [u8], usize)>, &'a [u8], Option<usize>);

/// Splits a rule's line.
#[cfg(any(test, fuzzing))]
pub(super) fn split(line: &[u8]) -> Result<Line<'_>, String> {
    let mut rest = line;
    let mut patterns = Vec::new();
    while patterns.is_empty() || patterns.len() == 1 && rest.starts_with(b"!") {
        let pattern = Pattern::split(&mut rest)?;
        patterns.push((
            pattern.source,
            groups(pattern.source, pattern.flags.extended),
        ));
    }
    let value = trim(rest);
    let highest = replacement::check(value).ok().map(|highest| highest.0);
    Ok((patterns, value, highest))
}

fn add_value(
    rules: &mut impl Receiver<Expressions>,
    text: &[u8],
    reader: &mut Reader<'_>,
) -> Result<(), String> {
    let mut rest = text;
    let first = Pattern::split(&mut rest).map_err(|problem| skipped(&problem))?;
    let mut second = None;
    if rest.starts_with(b"!") {
        second = Some(Pattern::split(&mut rest).map_err(|problem| skipped(&problem))?);
    }
    let value = trim(rest);
    if value.is_empty() {
        reader.warn("no replacement text: using empty string");
    }
    let highest = replacement::check(value).map_err(|problem| {
        match problem {
            replacement::Error::Syntax(text) => reader.warnings.push(text),
            replacement::Error::Index(text) => reader.warn(&text),
        }
        skipped("bad replacement syntax")
    })?;
    if first.negated && highest.0 > 0 {
        let problem = "$number found in negative match replacement text";
        return Err(skipped(problem));
    }
    let groups = groups(first.source, first.flags.extended);
    let first = first.compile()?;
    if highest.0 > groups {
        let problem = format!("out of range replacement index \"{}\"", highest.0);
        return Err(skipped(&problem));
    }
    let second = second.map(|second| second.compile()).transpose()?;
    rules.add_value(Expressions { first, second }, value);
    Ok(())
}

fn begin_if(
    rules: &mut impl Receiver<Expressions>,
    text: &[u8],
    reader: &mut Reader<'_>,
) -> Result<(), String> {
    let mut rest = text;
    let pattern = Pattern::split(&mut rest).map_err(|problem| skipped(&problem))?;
    let extra = trim(rest);
    if !extra.is_empty() {
        let extra = Shown(extra);
        reader.warn(&format!(
            "ignoring extra text after IF statement: \"{extra}\""
        ));
        reader.warn("do not prepend whitespace to statements between IF and ENDIF");
    }
    let (first, second) = (pattern.compile()?, None);
    rules.begin_if(Expressions { first, second }, reader.line);
    Ok(())
}

/// A pattern in its written form.
#[derive(Debug)]
struct Pattern<'a> {
    negated: bool,
    source: &'a [u8],
    flags: Flags,
}

impl<'a> Pattern<'a> {
    fn split(rest: &mut &'a [u8]) -> Result<Pattern<'a>, String> {
        let mut negated = false;
        let (delimiter, text) = loop {
            match rest.split_first() {
                None => return Err("no regexp".to_owned()),
                Some((b'!', after)) => {
                    negated = !negated;
                    *rest = after;
                }
                Some((&b, after)) if is_space(b) => *rest = after,
                Some((&delimiter, after)) => break (delimiter, after),
            }
        };
        let mut escaped = false;
        let end = text.iter().position(|&b| {
            let protected = std::mem::replace(&mut escaped, false);
            escaped = !protected && b == b'\\';
            !protected && b == delimiter
        });
        let Some((source, after)) = end.and_then(|end| text.split_at_checked(end)) else {
            let delimiter = [delimiter];
            return Err(format!(
                "no closing regexp delimiter \"{}\"",
                Shown(&delimiter)
            ));
        };
        *rest = after.get(1..).unwrap_or_default();
        let flags = flags(rest)?;
        Ok(Pattern {
            negated,
            source,
            flags,
        })
    }

    fn compile(&self) -> Result<Expression, String> {
        // A line ends at a NUL, so that none gets here.
        let source = CString::new(self.source).map_err(|error| error.to_string())?;
        Ok(Expression {
            negated: self.negated,
            regex: Regex::compile(&source, self.flags)?,
        })
    }
}

/// Splits flags off `rest`. Each toggles a default: case is ignored, and the syntax is extended.
fn flags(rest: &mut &[u8]) -> Result<Flags, String> {
    let mut flags = Flags {
        ignore_case: true,
        newline: false,
        extended: true,
    };
    while let Some((&flag, after)) = rest.split_first() {
        match flag {
            b'i' => flags.ignore_case = !flags.ignore_case,
            b'm' => flags.newline = !flags.newline,
            b'x' => flags.extended = !flags.extended,
            b'!' => break,
            _ if is_space(flag) => break,
            _ => {
                let flag = [flag];
                return Err(format!("unknown regexp option \"{}\"", Shown(&flag)));
            }
        }
        *rest = after;
    }
    Ok(flags)
}

/// The number of groups of a valid pattern: the C library's number is not accessible from Rust.
fn groups(pattern: &[u8], extended: bool) -> usize {
    let mut groups = 0;
    let mut rest = pattern;
    while let Some((&b, after)) = rest.split_first() {
        rest = after;
        match b {
            b'\\' => {
                if let Some((&next, after)) = rest.split_first() {
                    groups += usize::from(next == b'(' && !extended);
                    rest = after;
                }
            }
            b'(' => groups += usize::from(extended),
            b'[' => rest = after_bracket(rest),
            _ => {}
        }
    }
    groups
}

/// The text after a bracket expression, from the text after its `[`. Inside all characters are literal, also `]` at the
/// start.
fn after_bracket(text: &[u8]) -> &[u8] {
    let text = text.strip_prefix(b"^").unwrap_or(text);
    let mut rest = text.strip_prefix(b"]").unwrap_or(text);
    while let Some((&b, after)) = rest.split_first() {
        rest = after;
        match (b, after.first()) {
            (b']', _) => break,
            (b'[', Some(&kind @ (b':' | b'.' | b'='))) => {
                let end = after.windows(2).skip(1).position(|two| two == [kind, b']']);
                rest = end.and_then(|end| after.get(end + 3..)).unwrap_or(after);
            }
            _ => {}
        }
    }
    rest
}
