//! Expands `$name`, `${name?text}` and `${{a} == {b} ? {text} : {text}}` in values.
//!
//! A value is scanned once, from left to right; the caller gives the value of a name, which is scanned in turn.
//! Comparisons are left to `relation`. Follows `tests/spec/main-cf.md`, section 3, and postconf(5), "the general format
//! of the main.cf file"; where the manual is silent, and for the warnings, Postfix 3.7's programs.

use std::borrow::Cow;
use std::cell::Cell;

use super::error::{Error, bad, syntax};
use super::lines::{skip_space, split_where};
use super::relation;
use crate::log::Shown;

/// The deepest nesting of values that refer to values.
const NESTING: u32 = 100;

/// The largest number of references and pieces of text that one value may lead to. Postfix has no such limit: a hundred
/// names that each refer twice to the next one would keep it busy without end (`tests/spec/differences.md`, 23).
const PIECES: u32 = 100_000;

/// Returns the value of a name, not expanded; `None` for an unknown name, whose value is empty.
pub(super) type Lookup<'f, 'a> = &'f dyn Fn(&[u8]) -> Result<Option<Cow<'a, [u8]>>, Error>;

/// The progress of the expansion of a value, which continues in the defaults that it refers to.
///
/// Unlike Postfix, where a default has limits of its own: there it is expanded once, when it is loaded, and here for
/// each reference (`tests/spec/differences.md`, 23).
#[derive(Debug, Default)]
pub(super) struct Progress {
    level: Cell<u32>,
    pieces: Cell<u32>,
}

/// Replaces all references in `value`.
pub(super) fn expand<'a>(
    value: Cow<'a, [u8]>,
    progress: &Progress,
    lookup: Lookup<'_, 'a>,
) -> Result<Cow<'a, [u8]>, Error> {
    if !value.contains(&b'$') {
        return Ok(value);
    }
    let level = progress.level.get();
    if level == 0 {
        progress.pieces.set(0);
    }
    let mut out = Vec::new();
    Expansion { lookup, progress }.text(&value, level, &mut out)?;
    Ok(Cow::Owned(out))
}

struct Expansion<'f, 'a> {
    lookup: Lookup<'f, 'a>,
    progress: &'f Progress,
}

/// The text after a name or a comparison: for a set name or a true comparison, and for the other case. `None` is the
/// name's value, the word `true`, or nothing.
struct Choice<'t> {
    then: Option<&'t [u8]>,
    otherwise: Option<&'t [u8]>,
}

impl<'a> Expansion<'_, 'a> {
    fn text(&self, text: &[u8], level: u32, out: &mut Vec<u8>) -> Result<(), Error> {
        let mut rest = text;
        let mut literal = Vec::new();
        while let Some(dollar) = rest.iter().position(|&b| b == b'$') {
            let (before, after) = rest.split_at(dollar);
            literal.extend_from_slice(before);
            let after = after.get(1..).unwrap_or_default();
            if let Some(escaped) = after.strip_prefix(b"$") {
                literal.push(b'$');
                rest = escaped;
                continue;
            }
            self.literal(&mut literal, level, out)?;
            let (inner, after) = reference(text, after)?;
            self.count(inner, level)?;
            self.reference(inner, level, out)?;
            rest = after;
        }
        literal.extend_from_slice(rest);
        self.literal(&mut literal, level, out)
    }

    fn literal(&self, literal: &mut Vec<u8>, level: u32, out: &mut Vec<u8>) -> Result<(), Error> {
        if !literal.is_empty() {
            self.count(literal, level)?;
            out.append(literal);
        }
        Ok(())
    }

    fn count(&self, piece: &[u8], level: u32) -> Result<(), Error> {
        let pieces = self.progress.pieces.get() + 1;
        self.progress.pieces.set(pieces);
        if level > NESTING || pieces > PIECES {
            let piece = Shown(piece);
            return Err(bad(format!("unreasonable macro call nesting: \"{piece}\"")));
        }
        Ok(())
    }

    /// Replaces the reference with the text between the brackets after `$`, or with a name without brackets.
    fn reference(&self, inner: &[u8], level: u32, out: &mut Vec<u8>) -> Result<(), Error> {
        let start = skip_space(inner);
        if start.first() == Some(&b'{') {
            return self.comparison(start, level, out);
        }
        let (name, after) = split_where(start, |b| b.is_ascii_alphanumeric() || b == b'_');
        let rest = skip_space(after);
        let choice = match choice(rest)? {
            Some(choice) => choice,
            None if rest.is_empty() => Choice {
                then: None,
                otherwise: None,
            },
            None => {
                let (before, _) = inner.split_at(inner.len() - after.len());
                return Err(syntax("attribute name syntax error", before, after));
            }
        };
        let value = self.value(name, level)?;
        match (value, choice.then) {
            // Without a choice there is no text for either case, and with `:` alone none for this one.
            (Some(value), None) if rest.is_empty() => self.text(&value, level + 1, out),
            (Some(_), Some(text)) => self.text(text, level + 1, out),
            (Some(_), None) => Ok(()),
            (None, _) => self.optional(choice.otherwise, level, out),
        }
    }

    /// The value of `name` on this level, unless it is empty.
    fn value(&self, name: &[u8], level: u32) -> Result<Option<Cow<'a, [u8]>>, Error> {
        let outer = self.progress.level.replace(level + 1);
        let value = (self.lookup)(name);
        self.progress.level.set(outer);
        Ok(value?.filter(|value| !value.is_empty()))
    }

    fn comparison(&self, text: &[u8], level: u32, out: &mut Vec<u8>) -> Result<(), Error> {
        let (left, after) = braced(text)?;
        let (operator, after) = relation::operator(left, skip_space(after))?;
        let operand = skip_space(after);
        if operand.first() != Some(&b'{') {
            let before = [b"{", left, b"} ", operator.symbol().as_bytes()].concat();
            return Err(syntax("\"{expression}\" expected", &before, after));
        }
        let (right, after) = braced(operand)?;
        let after = skip_space(after);
        let choice = match choice(after)? {
            Some(choice) => choice,
            None if after.is_empty() => Choice {
                then: Some(b"true"),
                otherwise: None,
            },
            None => return Err(syntax("\"?\" or \":\" expected", b"}", after)),
        };
        // Unlike Postfix, an operand counts as a level: there a parameter that refers to itself in an operand runs out
        // of stack (`tests/spec/differences.md`, 23).
        let (mut lhs, mut rhs) = (Vec::new(), Vec::new());
        self.text(left, level + 1, &mut lhs)?;
        self.text(right, level + 1, &mut rhs)?;
        let text = if operator.holds(&lhs, &rhs)? {
            choice.then
        } else {
            choice.otherwise
        };
        self.optional(text, level, out)
    }

    fn optional(&self, text: Option<&[u8]>, level: u32, out: &mut Vec<u8>) -> Result<(), Error> {
        text.map_or(Ok(()), |text| self.text(text, level + 1, out))
    }
}

/// Splits the text after a `$` into the reference, without its brackets, and the rest.
fn reference<'t>(whole: &[u8], text: &'t [u8]) -> Result<(&'t [u8], &'t [u8]), Error> {
    let (inner, after) = match text.first() {
        Some(b'(') => balanced(text, b'(', b')'),
        Some(b'{') => balanced(text, b'{', b'}'),
        _ => Some(split_where(text, |b| {
            b.is_ascii_alphanumeric() || b == b'_'
        })),
    }
    .ok_or_else(|| bad(format!("truncated macro reference: \"{}\"", Shown(whole))))?;
    if inner.is_empty() {
        return Err(bad(format!("empty macro name: \"{}\"", Shown(whole))));
    }
    Ok((inner, after))
}

/// Reads `?text`, `?{text}`, `?{text}:text`, `?{text}:{text}`, `:text` or `:{text}`; `None` if there is neither `?` nor
/// `:`. Text without braces reaches to the end.
fn choice(text: &[u8]) -> Result<Option<Choice<'_>>, Error> {
    if let Some(text) = text.strip_prefix(b":") {
        return Ok(Some(Choice {
            then: None,
            otherwise: Some(last_text(text)?),
        }));
    }
    let Some(text) = text.strip_prefix(b"?") else {
        return Ok(None);
    };
    let start = skip_space(text);
    if start.first() != Some(&b'{') {
        return Ok(Some(Choice {
            then: Some(text),
            otherwise: None,
        }));
    }
    let (then, after) = braced(start)?;
    let after = skip_space(after);
    let otherwise = match after.strip_prefix(b":") {
        Some(text) => Some(last_text(text)?),
        None if after.is_empty() => None,
        None => {
            return Err(syntax("\":\" expected", &[then, b"}"].concat(), after));
        }
    };
    Ok(Some(Choice {
        then: Some(then),
        otherwise,
    }))
}

fn last_text(text: &[u8]) -> Result<&[u8], Error> {
    let start = skip_space(text);
    if start.first() != Some(&b'{') {
        return Ok(text);
    }
    let (inner, after) = braced(start)?;
    let after = skip_space(after);
    if !after.is_empty() {
        return Err(syntax("unexpected input", &[inner, b"}"].concat(), after));
    }
    Ok(inner)
}

/// Splits text that starts with `{` into the text in braces and the rest.
fn braced(text: &[u8]) -> Result<(&[u8], &[u8]), Error> {
    // Only outer round brackets can have unbalanced braces.
    balanced(text, b'{', b'}').ok_or_else(|| {
        let text = Shown(text);
        bad(format!(
            "unbalanced {{}} in attribute expression: \"{text}\""
        ))
    })
}

/// Splits text that starts with `opening` after the matching `closing`. Brackets of other kinds are text.
fn balanced(text: &[u8], opening: u8, closing: u8) -> Option<(&[u8], &[u8])> {
    let mut depth = 0_usize;
    for (at, &b) in text.iter().enumerate() {
        if b == opening {
            depth += 1;
        } else if b == closing {
            depth -= 1;
            if depth == 0 {
                return Some((text.get(1..at)?, text.get(at + 1..)?));
            }
        }
    }
    None
}
