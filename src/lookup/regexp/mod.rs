//! `regexp:FILE`, `regexp:{ {rule}, {rule} }`: POSIX regular expressions, the first that matches decides.
//!
//! `[!]/pattern/flags value`, `/p/flags!/q/flags value` for what p matches and q does not, and `if [!]/pattern/flags`
//! ... `endif` around rules. Any byte that is no letter or digit may stand for the slash. What `$1` in a value stands
//! for is nobody's concern here; but a rule whose value cannot be right is left out, as in Postfix. Authority:
//! regexp_table(5), and `tests/spec/client-access.md`, section 4.2.

mod replacement;

#[cfg(test)]
mod tests;

use std::ffi::CString;

use replacement::Highest;

use super::table::{Keys, Problem, Reason, Table};
use super::text::{self, Once, Parsed, Source};
use crate::config::lines::{is_space, trim};
use crate::log::{Shown, error_text};
use crate::sys::regex::{Flags, Regex};

/// A table of regular expressions.
#[derive(Debug)]
pub(super) struct Regexp {
    name: String,
    source: Source,
    rules: Once<Vec<Rule>>,
}

impl Regexp {
    pub(super) fn open(name: &str, text: &str) -> Result<Regexp, Reason> {
        Ok(Regexp::over(name, Source::rules("regexp", text)?))
    }

    pub(super) fn over(name: &str, source: Source) -> Regexp {
        Regexp {
            name: name.to_owned(),
            source,
            rules: Once::new(),
        }
    }

    fn read(&self) -> Parsed<Vec<Rule>> {
        let path = self.source.name();
        match self.source.read() {
            Ok(bytes) => Reader::read(path, &bytes),
            Err(error) => Parsed {
                warnings: Vec::new(),
                result: Err(format!(
                    "regexp map {path}: read error: {}",
                    error_text(&error)
                )),
            },
        }
    }
}

impl Table for Regexp {
    fn name(&self) -> &str {
        &self.name
    }

    fn keys(&self) -> Keys {
        Keys::Pattern
    }

    fn find(&self, key: &str) -> Result<Option<Vec<u8>>, Problem> {
        let rules = self.rules.get(&self.name, || self.read())?;
        let found = CString::new(key)
            .map_err(|error| error.to_string())
            .and_then(|key| find(rules, &key));
        match found {
            Ok(value) => Ok(value.map(<[u8]>::to_vec)),
            // Unlike Postfix, which goes on as if the rule did not match: it may be the one that keeps somebody out
            // (`tests/spec/differences.md`, 20).
            Err(error) => Err(Problem::from(format!(
                "regexp map {}: {error}",
                self.source.name()
            ))),
        }
    }

    fn load(&self) -> Result<(), Problem> {
        self.rules.load(|| self.read())
    }
}

/// A line.
#[derive(Debug)]
enum Rule {
    Value {
        first: Expression,
        second: Option<Expression>,
        value: Vec<u8>,
    },
    /// The rules up to the one at `end` are for keys that fulfil the condition.
    If { condition: Expression, end: usize },
}

#[derive(Debug)]
struct Expression {
    negated: bool,
    regex: Regex,
    groups: usize,
}

impl Expression {
    fn holds(&self, key: &CString) -> Result<bool, String> {
        Ok(self.regex.is_match(key)? != self.negated)
    }
}

fn find<'r>(rules: &'r [Rule], key: &CString) -> Result<Option<&'r [u8]>, String> {
    let mut next = 0;
    while let Some(rule) = rules.get(next) {
        next += 1;
        match rule {
            Rule::Value {
                first,
                second,
                value,
            } => {
                let also = |second: &Expression| second.holds(key);
                if first.holds(key)? && second.as_ref().map_or(Ok(true), also)? {
                    return Ok(Some(value));
                }
            }
            Rule::If { condition, end } => {
                if !condition.holds(key)? {
                    next = *end;
                }
            }
        }
    }
    Ok(None)
}

/// A rule without the C library: patterns, each with its number of groups; value; the highest group that the value asks
/// for, if it can be right at all.
#[cfg(any(test, fuzzing))]
pub type Line<'a> = (Vec<(&'a [u8], usize)>, &'a [u8], Option<usize>);

/// Takes a rule's line apart.
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

/// The rules and warnings of a table that is being read.
struct Reader<'a> {
    path: &'a str,
    rules: Vec<Rule>,
    warnings: Vec<String>,
    /// The positions of the conditions that no endif has closed yet, and their lines.
    open: Vec<(usize, usize)>,
    /// The line at hand.
    line: usize,
}

impl Reader<'_> {
    fn read(path: &str, bytes: &[u8]) -> Parsed<Vec<Rule>> {
        let mut misplaced = Vec::new();
        let mut reader = Reader {
            path,
            rules: Vec::new(),
            warnings: Vec::new(),
            open: Vec::new(),
            line: 0,
        };
        for line in text::lines(path, bytes, &mut |warning| misplaced.push(warning)) {
            reader.line = line.first_line;
            let text = trim(&line.text);
            let word = text.iter().take_while(|b| b.is_ascii_alphanumeric());
            let (word, rest) = text.split_at(word.count());
            if word.is_empty() {
                reader.add_value(rest);
            } else if word.eq_ignore_ascii_case(b"if") {
                reader.add_condition(trim(rest));
            } else if word.eq_ignore_ascii_case(b"endif") {
                reader.end(trim(rest));
            } else {
                reader.warn("ignoring unrecognized request");
            }
        }
        while let Some((_, line)) = reader.open.pop() {
            reader.line = line;
            reader.warn("IF has no matching ENDIF");
        }
        misplaced.append(&mut reader.warnings);
        Parsed {
            warnings: misplaced,
            result: Ok(reader.rules),
        }
    }

    fn warn(&mut self, problem: &str) {
        let warning = format!("regexp map {}, line {}: {problem}", self.path, self.line);
        self.warnings.push(warning);
    }

    fn skip(&mut self, problem: &str) {
        self.warn(&format!("{problem}: skipping this rule"));
    }

    fn add_value(&mut self, text: &[u8]) {
        let mut rest = text;
        let Some(first) = self.pattern(&mut rest) else {
            return;
        };
        let mut second = None;
        if rest.starts_with(b"!") {
            second = self.pattern(&mut rest);
            if second.is_none() {
                return;
            }
        }
        let value = trim(rest);
        if value.is_empty() {
            self.warn("no replacement text: using empty string");
        }
        let Some(highest) = self.replacement(value) else {
            return;
        };
        if first.negated && highest.0 > 0 {
            self.skip("$number found in negative match replacement text");
            return;
        }
        let Some(first) = self.compile(first) else {
            return;
        };
        if highest.0 > first.groups {
            self.skip(&format!("out of range replacement index \"{}\"", highest.0));
            return;
        }
        let second = match second.map(|second| self.compile(second)) {
            None => None,
            Some(None) => return,
            Some(second) => second,
        };
        let value = value.to_vec();
        self.rules.push(Rule::Value {
            first,
            second,
            value,
        });
    }

    fn add_condition(&mut self, text: &[u8]) {
        let mut rest = text;
        let Some(pattern) = self.pattern(&mut rest) else {
            return;
        };
        let extra = trim(rest);
        if !extra.is_empty() {
            let extra = Shown(extra);
            self.warn(&format!(
                "ignoring extra text after IF statement: \"{extra}\""
            ));
            self.warn("do not prepend whitespace to statements between IF and ENDIF");
        }
        let Some(condition) = self.compile(pattern) else {
            return;
        };
        self.open.push((self.rules.len(), self.line));
        let end = usize::MAX;
        self.rules.push(Rule::If { condition, end });
    }

    fn end(&mut self, extra: &[u8]) {
        let Some((position, _)) = self.open.pop() else {
            self.warn("ignoring ENDIF without matching IF");
            return;
        };
        if !extra.is_empty() {
            self.warn("ignoring extra text after ENDIF");
        }
        let next = self.rules.len();
        if let Some(Rule::If { end, .. }) = self.rules.get_mut(position) {
            *end = next;
        }
    }

    /// Splits `!` signs, a delimited pattern and its flags off `rest`.
    fn pattern<'t>(&mut self, rest: &mut &'t [u8]) -> Option<Pattern<'t>> {
        match Pattern::split(rest) {
            Ok(pattern) => Some(pattern),
            Err(problem) => {
                self.skip(&problem);
                None
            }
        }
    }

    fn compile(&mut self, pattern: Pattern<'_>) -> Option<Expression> {
        // No NUL gets here: a line ends at one.
        let source = CString::new(pattern.source).ok()?;
        match Regex::compile(&source, pattern.flags) {
            Ok(regex) => Some(Expression {
                negated: pattern.negated,
                regex,
                groups: groups(pattern.source, pattern.flags.extended),
            }),
            Err(problem) => {
                self.warn(&problem);
                None
            }
        }
    }

    fn replacement(&mut self, value: &[u8]) -> Option<Highest> {
        match replacement::check(value) {
            Ok(highest) => Some(highest),
            Err(problem) => {
                match problem {
                    replacement::Error::Syntax(text) => self.warnings.push(text),
                    replacement::Error::Index(text) => self.warn(&text),
                }
                self.skip("bad replacement syntax");
                None
            }
        }
    }
}

/// A pattern as it is written.
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
}

/// Splits flags off `rest`. Each toggles: case is ignored, and the syntax extended, unless they say otherwise.
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

/// How many groups a pattern has that is known to be one: the C library keeps the number where Rust cannot see it.
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

/// What follows a bracket expression, given what follows its `[`. In there everything stands for itself, and `]` too
/// where it is first.
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
