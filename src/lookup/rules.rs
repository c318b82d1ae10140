//! Rules in order with conditions around them: the common part of `cidr:` and `regexp:` tables.
//!
//! The first rule whose condition holds for a key has the value. The rules between `if` and `endif` are for keys for
//! which that condition holds; these pairs nest. Follows cidr_table(5), regexp_table(5), and
//! `tests/spec/client-access.md`, section 4.2. The conditions are left to `lookup::cidr` and `lookup::regexp`.

use std::fmt::Debug;
use std::marker::PhantomData;

use super::table::{Keys, Reason};
use super::text::{Answer, Asked, Contents, Format, Reader, Source, TextTable};

/// What a rule demands of a key.
pub(super) trait Condition: Debug + Sized {
    /// The type of the table.
    const KIND: &'static str;

    const KEYS: Keys;

    /// As [`Format::KEPT_AS_TEXT`].
    const KEPT_AS_TEXT: bool = false;

    /// A key in the form for conditions.
    type Key: Debug;

    /// Conditions of which the one that a key fulfils is found without a look at the others.
    type Index: Debug + Default;

    /// Nothing for a key that no condition is for.
    fn key(key: &str) -> Result<Option<Self::Key>, String>;

    fn holds(&self, key: &Self::Key) -> Result<bool, String>;

    /// Adds the condition of a rule with the value of this number. False where it is none that an index can have.
    fn add_to(&self, _index: &mut Self::Index, _value: usize) -> bool {
        false
    }

    /// Gets the index ready, after the last condition.
    fn sort(_index: &mut Self::Index) {}

    /// The lowest number that was added with a condition that the key fulfils.
    fn first_in(_index: &Self::Index, _key: &Self::Key) -> Option<usize> {
        None
    }

    /// Reads a line, and passes its rule on. The error is the reason why a line is skipped.
    fn rule(
        rules: &mut impl Receiver<Self>,
        line: &[u8],
        reader: &mut Reader<'_>,
    ) -> Result<(), String>;
}

/// The receiver of rules.
pub(super) trait Receiver<C> {
    fn add_value(&mut self, condition: C, value: &[u8]);

    /// `if`, on the line of this number.
    fn begin_if(&mut self, condition: C, line: usize);

    /// `endif`. False if there is no `if` for it.
    fn end_if(&mut self) -> bool;
}

/// A table of rules.
#[derive(Debug)]
pub(super) struct RuleTable<C>(PhantomData<C>);

impl<C: Condition> RuleTable<C> {
    pub(super) fn new() -> RuleTable<C> {
        RuleTable(PhantomData)
    }

    /// The table `table`, whose rules are in `name`: the file of that name, or text in braces.
    pub(super) fn open(table: &str, name: &str) -> Result<TextTable<RuleTable<C>>, Reason> {
        let source = Source::rules(C::KIND, name)?;
        Ok(TextTable::new(table, source, RuleTable::new()))
    }
}

impl<C: Condition> Format for RuleTable<C> {
    const KEYS: Keys = C::KEYS;

    const KEPT_AS_TEXT: bool = C::KEPT_AS_TEXT;

    type Whole = Rules<C>;

    type Search = Search<C>;

    fn whole(&self) -> Rules<C> {
        Rules::new()
    }

    fn search(&self, asked: Asked) -> Search<C> {
        let Asked { key, name, addr } = asked;
        let mut search = Search {
            keys: Vec::new(),
            unclosed: Vec::new(),
            has_ended: false,
        };
        for text in [key, name, addr].into_iter().flatten() {
            if !search.keys.iter().any(|key| key.text == text) {
                search.keys.push(SearchedKey::new(text));
            }
        }
        search
    }
}

fn take_line<C: Condition>(
    rules: &mut impl Receiver<C>,
    line: &[u8],
    reader: &mut Reader<'_>,
) -> Result<(), String> {
    if let Err(problem) = C::rule(rules, line, reader) {
        reader.warn(&problem);
    }
    Ok(())
}

/// Warns of the lines whose conditions have no endif.
fn warn_of_unclosed(lines: impl Iterator<Item = usize>, reader: &mut Reader<'_>) {
    for line in lines {
        reader.line = line;
        reader.warn("IF has no matching ENDIF");
    }
}

/// The rules of a table.
#[derive(Debug)]
pub(super) struct Rules<C: Condition> {
    rules: Vec<Rule<C>>,
    values: Values,
    /// The positions of the conditions without an endif so far, and their lines.
    unclosed: Vec<(usize, usize)>,
}

#[derive(Debug)]
enum Rule<C: Condition> {
    /// Rules one after another. Their values have higher and higher numbers.
    Index(C::Index),
    Value {
        condition: C,
        /// The number of the value.
        value: usize,
    },
    /// The rules up to `end` are for keys for which the condition holds.
    If { condition: C, end: usize },
    /// The end of these.
    EndIf,
}

/// Values in order. Repeated values in a row are stored once.
#[derive(Debug, Default)]
struct Values {
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Values {
    /// Adds a value, and returns its number.
    fn add(&mut self, value: &[u8]) -> usize {
        let last = self.ends.len().checked_sub(1);
        match last {
            Some(last) if self.get(last) == value => last,
            Some(_) | None => {
                self.text.extend_from_slice(value);
                self.ends.push(self.text.len());
                self.ends.len() - 1
            }
        }
    }

    fn get(&self, number: usize) -> &[u8] {
        let before = number.checked_sub(1).and_then(|at| self.ends.get(at));
        let end = self.ends.get(number).copied().unwrap_or_default();
        let value = self.text.get(before.copied().unwrap_or_default()..end);
        value.unwrap_or_default()
    }
}

impl<C: Condition> Rules<C> {
    pub(super) fn new() -> Rules<C> {
        Rules {
            rules: Vec::new(),
            values: Values::default(),
            unclosed: Vec::new(),
        }
    }
}

impl<C: Condition> Receiver<C> for Rules<C> {
    fn add_value(&mut self, condition: C, value: &[u8]) {
        let value = self.values.add(value);
        let is_in = match self.rules.last_mut() {
            Some(Rule::Index(index)) => condition.add_to(index, value),
            Some(_) | None => {
                let mut index = C::Index::default();
                let is_in = condition.add_to(&mut index, value);
                if is_in {
                    self.rules.push(Rule::Index(index));
                }
                is_in
            }
        };
        if !is_in {
            self.rules.push(Rule::Value { condition, value });
        }
    }

    fn begin_if(&mut self, condition: C, line: usize) {
        self.unclosed.push((self.rules.len(), line));
        let end = usize::MAX;
        self.rules.push(Rule::If { condition, end });
    }

    fn end_if(&mut self) -> bool {
        let next = self.rules.len();
        let opened = self.unclosed.pop();
        if let Some(Rule::If { end, .. }) = opened.and_then(|(at, _)| self.rules.get_mut(at)) {
            *end = next;
            self.rules.push(Rule::EndIf);
        }
        opened.is_some()
    }
}

impl<C: Condition> Rules<C> {
    fn value(&self, key: &str) -> Answer {
        let Some(key) = C::key(key)? else {
            return Ok(None);
        };
        let mut next = 0;
        while let Some(rule) = self.rules.get(next) {
            next += 1;
            match rule {
                Rule::Value { condition, value } => {
                    if condition.holds(&key)? {
                        return Ok(Some(self.values.get(*value).to_vec()));
                    }
                }
                Rule::Index(index) => {
                    if let Some(value) = C::first_in(index, &key) {
                        return Ok(Some(self.values.get(value).to_vec()));
                    }
                }
                Rule::If { condition, end } => {
                    if !condition.holds(&key)? {
                        next = *end;
                    }
                }
                Rule::EndIf => {}
            }
        }
        Ok(None)
    }
}

impl<C: Condition> Contents for Rules<C> {
    fn rule(&mut self, line: &[u8], reader: &mut Reader<'_>) -> Result<(), String> {
        take_line(self, line, reader)
    }

    fn end(&mut self, reader: &mut Reader<'_>) {
        for rule in &mut self.rules {
            if let Rule::Index(index) = rule {
                C::sort(index);
            }
        }
        let unclosed = std::mem::take(&mut self.unclosed);
        warn_of_unclosed(unclosed.into_iter().rev().map(|(_, line)| line), reader);
    }

    fn answer(&self, key: &str) -> Option<Answer> {
        Some(self.value(key))
    }
}

/// The rules of a table while it is read for the keys of one client: each rule is compared with the keys and forgotten.
///
/// Unlike Postfix, which reads a table to its end, a search ends with the rule that the first key matches: errors in
/// later lines are not noticed (`tests/spec/differences.md`, 52).
#[derive(Debug)]
pub(super) struct Search<C: Condition> {
    keys: Vec<SearchedKey<C>>,
    /// The lines of the conditions without an endif so far.
    unclosed: Vec<usize>,
    has_ended: bool,
}

#[derive(Debug)]
struct SearchedKey<C: Condition> {
    text: String,
    /// `None` if no condition applies to it, or if its answer is known.
    key: Option<C::Key>,
    /// The number of open conditions up to the one that does not hold for the key. The rules inside are not for the
    /// key.
    outside: Option<usize>,
    answer: Option<Answer>,
}

impl<C: Condition> SearchedKey<C> {
    fn new(text: String) -> SearchedKey<C> {
        let (key, answer) = match C::key(&text) {
            Ok(key) => (key, None),
            Err(problem) => (None, Some(Err(problem))),
        };
        SearchedKey {
            text,
            key,
            outside: None,
            answer,
        }
    }

    /// Whether a rule is for this key, and its condition holds.
    fn fulfils(&mut self, condition: &C) -> Option<bool> {
        let key = self.key.as_ref().filter(|_| self.outside.is_none())?;
        match condition.holds(key) {
            Ok(holds) => Some(holds),
            Err(problem) => {
                self.know(Err(problem));
                None
            }
        }
    }

    fn know(&mut self, answer: Answer) {
        self.key = None;
        self.answer = Some(answer);
    }
}

impl<C: Condition> Receiver<C> for Search<C> {
    fn add_value(&mut self, condition: C, value: &[u8]) {
        for key in &mut self.keys {
            if key.fulfils(&condition) == Some(true) {
                key.know(Ok(Some(value.to_vec())));
            }
        }
    }

    fn begin_if(&mut self, condition: C, line: usize) {
        self.unclosed.push(line);
        for key in &mut self.keys {
            if key.fulfils(&condition) == Some(false) {
                key.outside = Some(self.unclosed.len());
            }
        }
    }

    fn end_if(&mut self) -> bool {
        let open = self.unclosed.len();
        for key in &mut self.keys {
            key.outside = key.outside.filter(|outside| *outside != open);
        }
        self.unclosed.pop().is_some()
    }
}

impl<C: Condition> Contents for Search<C> {
    fn rule(&mut self, line: &[u8], reader: &mut Reader<'_>) -> Result<(), String> {
        take_line(self, line, reader)
    }

    fn end(&mut self, reader: &mut Reader<'_>) {
        self.has_ended = true;
        warn_of_unclosed(self.unclosed.drain(..).rev(), reader);
    }

    fn is_done(&self) -> bool {
        self.keys.first().is_some_and(|key| key.answer.is_some())
    }

    fn answer(&self, key: &str) -> Option<Answer> {
        let key = self.keys.iter().find(|own| own.text == key)?;
        match &key.answer {
            None => self.has_ended.then_some(Ok(None)),
            known => known.clone(),
        }
    }
}

/// The text of a message about an error in a line.
pub(super) fn skipped(problem: &str) -> String {
    format!("{problem}: skipping this rule")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lookup::cidr::Networks;
    use crate::lookup::table::ClientKeys;
    use crate::lookup::text;

    #[test]
    fn a_search_ends_with_the_match_of_the_first_key() {
        let format = RuleTable::<Networks>::new();
        let search = |key: &str, file: &str| {
            let addr = "192.0.2.9";
            let (name, addr) = (None, Some(addr));
            let asked = Asked::new(key, &ClientKeys { name, addr });
            let (warnings, search) = text::parse(format.search(asked), "F", file.as_bytes());
            (warnings.len(), search.expect("a table"))
        };
        let file = "bad\n192.0.2.9 b\n192.0.2.1 a\nbad\nif ::/0\n";
        let (warnings, found) = search("192.0.2.1", file);
        assert_eq!(warnings, 1);
        assert_eq!(found.answer("192.0.2.1"), Some(Ok(Some(b"a".to_vec()))));
        assert_eq!(found.answer("192.0.2.9"), Some(Ok(Some(b"b".to_vec()))));
        let (warnings, found) = search("192.0.2.9", file);
        assert_eq!(warnings, 1);
        assert_eq!(found.answer("192.0.2.1"), None);
        let (warnings, found) = search("192.0.2.2", file);
        assert_eq!(warnings, 3);
        assert_eq!(found.answer("192.0.2.2"), Some(Ok(None)));
    }

    proptest! {
        #[test]
        fn a_search_says_no_more_of_the_lines_than_all_of_them_do(
            file in "((if |endif|!|192.0.2.0/2[45]|192.0.2.[1-3]|::/0|x)( v)?\n){0,12}"
        ) {
            let format = RuleTable::<Networks>::new();
            let (all, _) = text::parse(format.whole(), "F", file.as_bytes());
            for key in ["192.0.2.1", "192.0.2.130", "::1"] {
                let asked = Asked::new(key, &ClientKeys::default());
                let (some, search) = text::parse(format.search(asked), "F", file.as_bytes());
                prop_assert_eq!(&some, &all[..some.len()]);
                if search.expect("a table").answer(key) == Some(Ok(None)) {
                    prop_assert_eq!(&some, &all);
                }
            }
        }
    }

    #[test]
    fn a_value_is_kept_once_where_it_comes_again_and_again() {
        let mut values = Values::default();
        let numbers = ["a", "a", "", "", "b", "a"].map(|value| values.add(value.as_bytes()));
        assert_eq!(numbers, [0, 0, 1, 1, 2, 3]);
        let kept = [0, 1, 2, 3].map(|number| values.get(number));
        assert_eq!(kept, [&b"a"[..], b"", b"b", b"a"]);
    }
}
