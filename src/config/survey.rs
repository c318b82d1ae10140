//! What main.cf says, for people: what is set, where, and what is set for nobody.
//!
//! For `--check` and `--explain`; a serving process asks for values alone.

use super::file::read_file;
use super::lines::{self, logical_lines};
use super::params::{DefaultValue, Param};
use super::{Config, TABLE, main_cf, position};
use crate::log::Shown;

/// The parameters that change what qmqpd does; the others of [`TABLE`] are there to be referred to, and are checked.
/// A test holds this to the program and to its manual.
pub const ACTS: &[&str] = &[
    "service_name",
    "compatibility_level",
    "syslog_facility",
    "inet_protocols",
    "maillog_file",
    "postlog_service_name",
    "smtputf8_enable",
    "myhostname",
    "mail_name",
    "syslog_name",
    "mail_owner",
    "queue_directory",
    "debug_peer_list",
    "verp_delimiter_filter",
    "parent_domain_matches_subdomains",
    // For lookup tables.
    "proxymap_service_name",
    "command_directory",
    "meta_directory",
    "daemon_table_open_error_is_fatal",
    // For everybody.
    "cleanup_service_name",
    "smtputf8_autodetect_classes",
    "max_use",
    "line_length_limit",
    "debug_peer_level",
    "message_size_limit",
    "soft_bounce",
    "max_idle",
    "ipc_timeout",
    "daemon_timeout",
    "mynetworks",
    "qmqpd_timeout",
    "qmqpd_error_delay",
    "content_filter",
    "qmqpd_authorized_clients",
    "receive_override_options",
    "qmqpd_client_port_logging",
    "qmqpd_queue_method",
    // With the method `file`.
    "queue_service_name",
    "myorigin",
    "empty_address_recipient",
    "enable_original_recipient",
    "duplicate_filter_limit",
    "message_drop_headers",
    "undisclosed_recipients_header",
    "cleanup_replace_stray_cr_lf",
    "header_size_limit",
    "hopcount_limit",
    "delay_warning_time",
    "queue_minfree",
    "enable_long_queue_ids",
    "hash_queue_names",
    "hash_queue_depth",
    // Whatever the method.
    "qmqpd_sandbox",
    "qmqpd_peername_lookup",
    "qmqpd_log_stderr",
];

/// Where a parameter was given the value that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The first line of the entry in main.cf.
    Line(usize),
    /// `-o`
    CommandLine,
}

impl Config {
    /// Where `name` was set, if it was. Reads main.cf once more.
    pub fn place_of(&self, name: &str) -> Option<Place> {
        let value = self.set.get(name.as_bytes())?;
        let bytes = read_file(self.main_cf()).unwrap_or_default();
        let last = logical_lines(&bytes)
            .filter_map(|line| {
                let text = line.text.split(|&b| b == 0).next()?;
                let (found, value) = main_cf::split(text).ok()?;
                (found == name.as_bytes()).then(|| (line.first_line, value.to_vec()))
            })
            .last();
        match last {
            Some((line, found)) if found == *value => Some(Place::Line(line)),
            Some(_) | None => Some(Place::CommandLine),
        }
    }

    /// The expanded value of a parameter, if that is set and comes to something else than its default.
    pub fn changed(&self, name: &str) -> Option<String> {
        let position = position(name.as_bytes())?;
        if !self.is_set(name) || TABLE[position].is_fixed() {
            return None;
        }
        let value = self.value(position).ok()?;
        if self
            .default_value(position)
            .is_ok_and(|default| default == value)
        {
            return None;
        }
        Some(Shown(&value).to_string())
    }

    /// The names that are set, start with `prefix`, and that nobody knows: likely misspelt.
    pub fn unknown_names(&self, prefix: &str) -> Vec<String> {
        let unknown = self
            .set
            .keys()
            .filter(|name| name.starts_with(prefix.as_bytes()) && position(name).is_none());
        unknown.map(|name| Shown(name).to_string()).collect()
    }

    /// Whether nothing at all is set for `name`, or nothing but blanks and commas.
    pub fn is_empty_list(&self, name: &str) -> bool {
        let value = position(name.as_bytes()).map(|position| self.value(position));
        match value {
            Some(Ok(value)) => lines::items(&value).next().is_none(),
            Some(Err(_)) | None => false,
        }
    }
}

impl Param {
    /// What it is for, what to write there, and what holds where nothing is written.
    pub fn advice(&self) -> String {
        let mut text = format!("{} {} takes ", self.doc, self.name);
        text.push_str(match self.kind {
            "yes or no" => "\"yes\" or \"no\"",
            "time" => "a time (30s, 5m, 2h, 1d, 1w)",
            "number" => "a whole number",
            "keyword" | "keywords" => "words that it knows",
            other => other,
        });
        match (self.kind, self.min, self.max) {
            (_, 0, 0) => {}
            (
                "text" | "path" | "host name" | "level" | "facility" | "keyword" | "keywords",
                1,
                0,
            ) => {
                text.push_str(", and may not be empty");
            }
            ("time", min, 0) => text.push_str(&format!(" of at least {min}s")),
            (_, min, 0) => text.push_str(&format!(", at least {min}")),
            (_, min, max) => text.push_str(&format!(", from {min} to {max}")),
        }
        match self.default {
            DefaultValue::Text("") => text.push_str("; its default is empty"),
            DefaultValue::Text(default) => text.push_str(&format!("; its default is {default}")),
            DefaultValue::Computed(_) => text.push_str("; without a line it is worked out"),
            DefaultValue::Fixed(_) => {}
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, directory_with};
    use super::*;

    #[test]
    fn a_place_is_the_entry_that_counts() {
        let directory = directory_with("# c\na = 1\n\nsoft_bounce = no\na = \n  2\nb = 1\n");
        let config = directory.load(&["b=2", "c=3"]).unwrap();
        assert_eq!(config.place_of("a"), Some(Place::Line(5)));
        assert_eq!(config.place_of("b"), Some(Place::CommandLine));
        assert_eq!(config.place_of("c"), Some(Place::CommandLine));
        assert_eq!(config.place_of("d"), None);
    }

    #[test]
    fn what_comes_to_the_default_is_not_changed() {
        let config = config(
            "soft_bounce = no\nqmqpd_timeout = ${x}300s\nmyhostname = a.example\nqmqpd_error_delay = 2s\nx =\n",
        );
        assert_eq!(config.changed("soft_bounce"), None);
        assert_eq!(config.changed("qmqpd_timeout"), None);
        assert_eq!(config.changed("qmqpd_client_port_logging"), None);
        assert_eq!(config.changed("qmqpd_error_delay").as_deref(), Some("2s"));
    }

    #[test]
    fn names_that_nobody_knows_are_found() {
        let config = config("qmqpd_authorised_clients = x\nqmqpd_timeout = 1\nfoo = 1\n");
        assert_eq!(config.unknown_names("qmqpd_"), ["qmqpd_authorised_clients"]);
    }

    #[test]
    fn advice_names_form_bounds_and_default() {
        let advice = |name: &str| {
            let param = TABLE.iter().find(|param| param.name == name).unwrap();
            param.advice()
        };
        for (name, expected) in [
            (
                "soft_bounce",
                "Whether every permanent error becomes a temporary one. soft_bounce takes \"yes\" or \"no\"; its default is no",
            ),
            (
                "qmqpd_timeout",
                "The limit of each wait for the client. qmqpd_timeout takes a time (30s, 5m, 2h, 1d, 1w) of at least 1s; its default is 300s",
            ),
            (
                "line_length_limit",
                "The longest sender, recipient and text record, in bytes. line_length_limit takes a whole number, at least 512; its default is 2048",
            ),
            (
                "mail_owner",
                "The user that owns the mail queue, and that daemons run as. mail_owner takes text, and may not be empty; its default is postfix",
            ),
        ] {
            assert_eq!(advice(name), expected);
        }
    }
}
