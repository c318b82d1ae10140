//! Match lists: the first item that a client matches decides.
//!
//! Each item is compared with the client's name, then with its address. An item that cannot be evaluated ends the
//! evaluation, because the following items could give the opposite answer.
//!
//! An open name could not be looked up, and can be any name. Then each item is compared with the address; an item that
//! does not match it, but could match the name, may match or not. The list has an answer if all these cases have the
//! same one. Follows `tests/spec/client-access.md`, sections 1.2 to 1.4. Items are read in `lookup::items`.

use std::borrow::Cow;

use super::braces::is_separator;
use super::items::{Item, Items, Part, PartWhat};
use super::postmap::RunAs;
use super::table::{ClientKeys, FLAGS, Keys, ParentStyle, Problem, Table, parents_of};
use super::tables::Tables;
use super::{Error, Note, Unavailable, pattern};
use crate::config::valid_hostname;
use crate::log;

/// The parameter that says for which lists a domain includes its subdomains.
const PARENTS: &str = "parent_domain_matches_subdomains";

/// A list of patterns for clients.
#[derive(Debug)]
pub struct MatchList {
    list: &'static str,
    pub(super) items: Vec<Item>,
    parents: ParentStyle,
    /// smtputf8_enable
    utf8: bool,
}

/// The answer of a list for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    Listed,
    NotListed,
    /// The answer depends on the client's name, which is open.
    Undecided,
}

/// The answer of a list, and the item that decides.
#[derive(Debug)]
pub struct Decision<'a> {
    pub listing: Listing,
    /// The item that decides, or the first item that the name could match. `None` if no item matches: the client is not
    /// listed.
    pub item: Option<Part<'a>>,
}

impl<'a> Decision<'a> {
    /// `item` matches in any case, or is the end of the list. `open` is the first of the items before it that the name
    /// could match; all of these list the client, or none does.
    fn new(open: Option<Part<'a>>, item: Option<Part<'a>>) -> Decision<'a> {
        let is_listed = item.as_ref().is_some_and(|item| !item.negated);
        let listing = match open {
            Some(first) if first.negated == is_listed => return Decision::undecided(first),
            Some(_) | None if is_listed => Listing::Listed,
            Some(_) | None => Listing::NotListed,
        };
        Decision { listing, item }
    }

    /// The answer depends on the name, which `first` could match.
    fn undecided(first: Part<'a>) -> Decision<'a> {
        Decision {
            listing: Listing::Undecided,
            item: Some(first),
        }
    }
}

/// An error in an item.
#[derive(Debug, PartialEq, Eq)]
pub struct ItemProblem {
    /// `FILE, line N`; `None` for an item in the parameter itself.
    pub place: Option<String>,
    pub text: String,
}

/// An item that is no table.
#[derive(Debug)]
pub struct Literal<'a> {
    /// In lower case.
    pub pattern: Cow<'a, str>,
    /// Whether a domain includes its subdomains.
    pub includes_subdomains: bool,
    /// Whether the item has a `!`.
    pub negated: bool,
    /// `FILE, line N`; `None` for an item in the parameter itself.
    pub place: Option<String>,
}

impl MatchList {
    /// Reads the value of the parameter `list` with its files, and opens its tables.
    ///
    /// Errors in parts of it are logged; such a part cannot be evaluated later. The returned error is the text of the
    /// `fatal` message, which has not been logged, except for [`Error::TooManyErrors`].
    pub fn from_patterns(
        list: &'static str,
        patterns: &str,
        parents: ParentStyle,
        tables: &mut Tables,
    ) -> Result<MatchList, Error> {
        let (notes, opened) = MatchList::parse(list, patterns, parents, tables);
        for note in notes {
            match note {
                Note::Warning(text) => log::warning!("{text}"),
                Note::Error(text) if tables.settings.daemon_table_open_error_is_fatal => {
                    return Err(Error::Table(text));
                }
                Note::Error(text) => log::error!("{text}")?,
            }
        }
        opened
    }

    /// Reads a list, and returns the lines to log first.
    pub(super) fn parse(
        list: &'static str,
        patterns: &str,
        parents: ParentStyle,
        tables: &mut Tables,
    ) -> (Vec<Note>, Result<MatchList, Error>) {
        let utf8 = tables.settings.smtputf8_enable;
        let mut items = Items::new(list, tables);
        let added = items.add(patterns);
        let Items { items, notes, .. } = items;
        let opened = added.map(|()| MatchList {
            list,
            items,
            parents,
            utf8,
        });
        (notes, opened)
    }

    /// All items, in their order.
    pub(super) fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        self.items.iter().flat_map(Item::parts)
    }

    /// The tables that the evaluation can come to for a client at `addr`, each with the form in which the list looks up
    /// the parents of a name. `None` is an unknown address.
    pub fn reached(&self, addr: Option<&str>) -> Vec<(&str, ParentStyle)> {
        let addr = addr.map(str::to_ascii_lowercase);
        let addr = addr.as_deref().filter(|addr| pattern::is_numeric(addr));
        let mut reached = Vec::new();
        for item in self.parts() {
            let is_last = match &item.what {
                PartWhat::Table(table) => {
                    reached.push((table.name(), self.parents));
                    table.keys() == Keys::Any
                }
                PartWhat::Literal(literal) => {
                    addr.is_some_and(|addr| pattern::matches(literal, addr) != Ok(false))
                }
            };
            if is_last {
                break;
            }
        }
        reached
    }

    /// Whether a client is listed. `name` is its confirmed name or `unknown`, or `None` if it is open; `addr` is its
    /// address without brackets.
    pub fn match_client(&self, name: Option<&str>, addr: &str) -> Result<Listing, Unavailable> {
        match self.decide(name, addr) {
            Ok(decision) => Ok(decision.listing),
            Err(unavailable) => {
                for warning in &unavailable.warnings {
                    log::warning!("{warning}");
                }
                Err(unavailable)
            }
        }
    }

    /// The same as [`MatchList::match_client`], with the item that decides, and without a log line if the list cannot
    /// be evaluated.
    pub fn decide(&self, name: Option<&str>, addr: &str) -> Result<Decision<'_>, Unavailable> {
        // Unlike Postfix, which folds Unicode if smtputf8_enable is set, only ASCII is folded: a confirmed name has
        // only ASCII (`tests/spec/differences.md`, 15).
        let folded_name = name.map(str::to_ascii_lowercase);
        let folded_addr = addr.to_ascii_lowercase();
        let client = ClientKeys {
            name: folded_name.as_deref(),
            addr: Some(folded_addr.as_str()).filter(|addr| pattern::is_numeric(addr)),
        };
        let mut open: Option<Part<'_>> = None;
        // With -v each item is logged.
        let settled = client.name.is_some() && log::verbosity() == 0;
        let known = settled.then_some(client);
        for item in self.items.iter().flat_map(|item| item.parts_for(known)) {
            let has_name = match client.name {
                Some(name) => self.match_name(&item, name, &client)?,
                None => false,
            };
            if has_name || self.match_addr(&item, &folded_addr, &client)? {
                return Ok(Decision::new(open, Some(item)));
            }
            if client.name.is_some() || !may_have_a_name(&item) {
                continue;
            }
            self.trace("match_hostname", "(no name for now)", &item);
            match open {
                None => open = Some(item),
                // Two cases with different answers.
                Some(first) if first.negated != item.negated => {
                    return Ok(Decision::undecided(first));
                }
                Some(_) => {}
            }
        }
        if let Some(name) = name {
            log::debug!(1, "match_list_match: {name}: no match");
        }
        log::debug!(1, "match_list_match: {addr}: no match");
        Ok(Decision::new(open, None))
    }

    /// The errors in single items: malformed patterns, and tables that do not answer. A serving process finds one only
    /// if a client is compared with the item.
    pub fn problems(&self, tables: &Tables, run_as: RunAs<'_>) -> Vec<ItemProblem> {
        let problem = |item: Part<'_>| {
            let text = match &item.what {
                PartWhat::Literal(pattern) => pattern::check(pattern).err()?.to_string(),
                PartWhat::Table(table) => self.problem_of(&***table, tables, run_as)?,
            };
            Some(ItemProblem {
                place: item.place(),
                text: format!("{}: {text}", self.list),
            })
        };
        self.parts().filter_map(problem).collect()
    }

    /// The parameter with the list.
    pub fn name(&self) -> &'static str {
        self.list
    }

    /// The names and well-formed address patterns of the list.
    pub fn literals(&self) -> impl Iterator<Item = Literal<'_>> {
        self.parts().filter_map(|item| {
            let place = item.place();
            match item.what {
                PartWhat::Literal(pattern) if pattern::check(&pattern).is_ok() => Some(Literal {
                    pattern,
                    includes_subdomains: self.parents == ParentStyle::ParentAlso,
                    negated: item.negated,
                    place,
                }),
                PartWhat::Literal(_) | PartWhat::Table(_) => None,
            }
        })
    }

    fn problem_of(&self, table: &dyn Table, tables: &Tables, run_as: RunAs<'_>) -> Option<String> {
        let name = "localhost";
        let client = ClientKeys {
            name: Some(name),
            addr: None,
        };
        // A serving process may stop before the wrong line.
        table.take_snapshot();
        tables.begin([(table.name(), self.parents)], run_as);
        let found = self.has(table, name, &client);
        tables.end();
        let Problem(texts) = found.err()?;
        if texts.is_empty() {
            return Some(format!("{}: table lookup problem", table.name()));
        }
        Some(texts.join("; "))
    }

    fn match_name(
        &self,
        item: &Part<'_>,
        name: &str,
        client: &ClientKeys<'_>,
    ) -> Result<bool, Unavailable> {
        self.trace("match_hostname", name, item);
        match &item.what {
            PartWhat::Literal(pattern) => Ok(name == *pattern || self.is_below(name, pattern)),
            PartWhat::Table(table) => self
                .find_name(&***table, name, client)
                .map_err(|problem| self.unavailable(&***table, problem)),
        }
    }

    fn match_addr(
        &self,
        item: &Part<'_>,
        addr: &str,
        client: &ClientKeys<'_>,
    ) -> Result<bool, Unavailable> {
        self.trace("match_hostaddr", addr, item);
        if !pattern::is_numeric(addr) {
            return Ok(false);
        }
        match &item.what {
            PartWhat::Literal(pattern) => {
                pattern::matches(pattern, addr).map_err(|bad| Unavailable {
                    warnings: vec![format!("{}: {bad}", self.list)],
                })
            }
            PartWhat::Table(table) => self
                .has(&***table, addr, client)
                .map_err(|problem| self.unavailable(&***table, problem)),
        }
    }

    /// Whether `name` is in the domain of the pattern.
    fn is_below(&self, name: &str, pattern: &str) -> bool {
        let Some(start) = name.strip_suffix(pattern) else {
            return false;
        };
        match self.parents {
            ParentStyle::ParentAlso => start.ends_with('.'),
            ParentStyle::DotOnly => pattern.starts_with('.') && !start.is_empty(),
        }
    }

    /// Whether a table has `name`, or a domain that includes it.
    fn find_name(
        &self,
        table: &dyn Table,
        name: &str,
        client: &ClientKeys<'_>,
    ) -> Result<bool, Problem> {
        if self.has(table, name, client)? {
            return Ok(true);
        }
        if table.keys() != Keys::Fixed {
            return Ok(false);
        }
        for parent in parents_of(name, self.parents) {
            if self.has(table, parent, client)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a table has a key with any value, even an empty one. With smtputf8_enable a value that is not UTF-8 is
    /// an error for every client.
    fn has(&self, table: &dyn Table, key: &str, client: &ClientKeys<'_>) -> Result<bool, Problem> {
        let Some(value) = table.find(key, client)? else {
            return Ok(false);
        };
        if self.utf8 && std::str::from_utf8(&value).is_err() {
            return Err(Problem::from(format!(
                "{}: key \"{key}\": non-UTF-8 value \"{}\": malformed UTF-8 or invalid codepoint",
                table.name(),
                log::Shown(&value)
            )));
        }
        Ok(true)
    }

    fn unavailable(&self, table: &dyn Table, Problem(mut warnings): Problem) -> Unavailable {
        let problem = Error::TableProblem {
            list: self.list,
            table: table.name().to_owned(),
        };
        warnings.push(problem.to_string());
        Unavailable { warnings }
    }

    fn trace(&self, step: &str, what: &str, item: &Part<'_>) {
        if log::verbosity() == 0 {
            return;
        }
        let list = self.list;
        match &item.what {
            PartWhat::Literal(pattern) => {
                log::debug!(1, "{step}: {list}: {what} ~? {pattern}");
            }
            PartWhat::Table(table) => {
                let table = table.name();
                let flags = if table.starts_with("non-existent:") {
                    ""
                } else {
                    FLAGS
                };
                log::debug!(1, "{step}: {list}: {what} ~? {table}{flags}");
            }
        }
    }

    /// Whether a plain string is listed, without names, addresses and parents.
    fn match_string(&self, string: &str) -> Result<bool, Error> {
        let folded = string.to_ascii_lowercase();
        let keys = ClientKeys {
            name: Some(&folded),
            addr: None,
        };
        for item in self.parts() {
            self.trace("match_string", &folded, &item);
            let found = match &item.what {
                PartWhat::Literal(pattern) => folded == *pattern,
                PartWhat::Table(table) => match self.has(&***table, &folded, &keys) {
                    Ok(found) => found,
                    Err(Problem(warnings)) => {
                        for warning in warnings {
                            log::warning!("{warning}");
                        }
                        let (list, table) = (self.list, table.name().to_owned());
                        return Err(Error::TableProblem { list, table });
                    }
                },
            };
            if found {
                return Ok(!item.negated);
            }
        }
        log::debug!(1, "match_list_match: {string}: no match");
        Ok(false)
    }
}

/// Whether the item can match a name. A domain with a leading dot counts also in a list of the other style, where it
/// matches no name: its author means names.
fn may_have_a_name(item: &Part<'_>) -> bool {
    match &item.what {
        PartWhat::Literal(pattern) => {
            let domain = pattern.strip_prefix('.').unwrap_or(pattern);
            valid_hostname(domain.as_bytes()).is_ok()
        }
        PartWhat::Table(table) => table.keys() != Keys::Networks,
    }
}

/// The style in which `list` includes subdomains, from the value of parent_domain_matches_subdomains. That value is a
/// list of strings, with negation, files and tables; its errors are those of [`MatchList::from_patterns`].
pub fn parent_style(
    parent_domain_matches_subdomains: &str,
    list: &str,
    tables: &mut Tables,
) -> Result<ParentStyle, Error> {
    let value = parent_domain_matches_subdomains.as_bytes();
    // Most values have only names, and need no list.
    let plain = !value.iter().any(|b| b"!/:#{".contains(b));
    let listed = if plain && log::verbosity() == 0 {
        value
            .split(|&b| is_separator(char::from(b)))
            .any(|item| item.eq_ignore_ascii_case(list.as_bytes()))
    } else {
        MatchList::from_patterns(
            PARENTS,
            parent_domain_matches_subdomains,
            ParentStyle::DotOnly,
            tables,
        )?
        .match_string(list)?
    };
    Ok(if listed {
        ParentStyle::ParentAlso
    } else {
        ParentStyle::DotOnly
    })
}
