//! Rules in order, with conditions around them: what `cidr:` and `regexp:` tables have in common.
//!
//! The first rule whose condition a key fulfils has the value. The rules between `if` and `endif` are for keys that fulfil
//! that condition; these pairs nest. Authority: cidr_table(5), regexp_table(5), and `tests/spec/client-access.md`,
//! section 4.2.

use std::fmt::Debug;

use super::table::{Keys, Reason};
use super::text::{Contents, Reader, Source, TextTable};

/// What a rule demands of a key.
pub(super) trait Condition: Debug + Sized {
    /// The type of the table.
    const KIND: &'static str;

    const KEYS: Keys;

    /// A key in the form in which it is held against conditions.
    type Key;

    /// Nothing for a key that no condition is for.
    fn key(key: &str) -> Result<Option<Self::Key>, String>;

    fn holds(&self, key: &Self::Key) -> Result<bool, String>;

    /// Reads a line, and adds it to the rules. An error says what is wrong with a line that is left out.
    fn rule(rules: &mut Rules<Self>, line: &[u8], reader: &mut Reader<'_>) -> Result<(), String>;
}

/// The rules of a table.
#[derive(Debug)]
pub(super) struct Rules<C> {
    rules: Vec<Rule<C>>,
    /// The positions of the conditions that no endif has closed yet, and their lines.
    unclosed: Vec<(usize, usize)>,
}

/// A line.
#[derive(Debug)]
enum Rule<C> {
    Value {
        condition: C,
        value: Vec<u8>,
    },
    /// The rules up to the one at `end` are for keys that fulfil the condition.
    If {
        condition: C,
        end: usize,
    },
}

impl<C> Rules<C> {
    pub(super) fn new() -> Rules<C> {
        Rules {
            rules: Vec::new(),
            unclosed: Vec::new(),
        }
    }

    pub(super) fn add_value(&mut self, condition: C, value: &[u8]) {
        let value = value.to_vec();
        self.rules.push(Rule::Value { condition, value });
    }

    /// `if`, on the line of this number.
    pub(super) fn begin_if(&mut self, condition: C, line: usize) {
        self.unclosed.push((self.rules.len(), line));
        let end = usize::MAX;
        self.rules.push(Rule::If { condition, end });
    }

    /// `endif`. False where there is no `if` for it.
    pub(super) fn end_if(&mut self) -> bool {
        let next = self.rules.len();
        let opened = self.unclosed.pop();
        if let Some(Rule::If { end, .. }) = opened.and_then(|(at, _)| self.rules.get_mut(at)) {
            *end = next;
        }
        opened.is_some()
    }
}

impl<C: Condition> Rules<C> {
    /// The table `table`, whose rules are in `name`: in the file of that name, or in braces.
    pub(super) fn table(table: &str, name: &str) -> Result<TextTable<Rules<C>>, Reason> {
        let source = Source::rules(C::KIND, name)?;
        Ok(TextTable::new(table, source, Rules::new()))
    }
}

impl<C: Condition> Contents for Rules<C> {
    const KEYS: Keys = C::KEYS;

    fn rule(&mut self, line: &[u8], reader: &mut Reader<'_>) -> Result<(), String> {
        if let Err(problem) = C::rule(self, line, reader) {
            reader.warn(&problem);
        }
        Ok(())
    }

    fn end(&mut self, reader: &mut Reader<'_>) {
        while let Some((_, line)) = self.unclosed.pop() {
            reader.line = line;
            reader.warn("IF has no matching ENDIF");
        }
    }

    fn value(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        let Some(key) = C::key(key)? else {
            return Ok(None);
        };
        let mut next = 0;
        while let Some(rule) = self.rules.get(next) {
            next += 1;
            match rule {
                Rule::Value { condition, value } => {
                    if condition.holds(&key)? {
                        return Ok(Some(value.clone()));
                    }
                }
                Rule::If { condition, end } => {
                    if !condition.holds(&key)? {
                        next = *end;
                    }
                }
            }
        }
        Ok(None)
    }
}

/// What is wrong with a line, as a message has it.
pub(super) fn skipped(problem: &str) -> String {
    format!("{problem}: skipping this rule")
}
