//! What main.cf sets, and what a parameter takes; for `--check` and `--explain`.
//!
//! A serving process needs the values only.

use std::net::Ipv4Addr;

use crate::config::lines;
use crate::config::{Config, DefaultValue, Error, Param};
use crate::log::{self, Destination, Shown};
use crate::lookup::{Listing, MatchList};
use crate::options::Options;

/// Reads main.cf as a serving process does, with a log that is kept in memory.
pub fn load(options: &Options, process: &str) -> Result<Config, Error> {
    log::configure(process, Destination::Kept, true);
    options.load_config(process)
}

/// The expanded value of a parameter, if it is set and differs from the default.
pub fn changed(config: &Config, name: &str) -> Option<String> {
    config.as_set(name)?;
    let value = config.expanded(name)?;
    let is_default = config.expanded_default(name).as_ref() == Some(&value);
    (!is_default).then(|| Shown(&value).to_string())
}

/// Whether `name` is not set, or its value has only blanks and commas.
pub fn is_empty_list(config: &Config, name: &str) -> bool {
    let value = config.expanded(name);
    value.is_some_and(|value| lines::items(&value).next().is_none())
}

/// Addresses that no client has (RFC 5737). A list that has both has every client.
const UNUSED: [Ipv4Addr; 2] = [
    Ipv4Addr::new(198, 51, 100, 77),
    Ipv4Addr::new(203, 0, 113, 77),
];

/// Whether a list has every client with this name; without a name, every client.
pub fn has_everybody(list: &MatchList, name: Option<&str>) -> bool {
    let is_listed = |addr: &Ipv4Addr| {
        let decision = list.decide(name, &addr.to_string());
        decision.is_ok_and(|decision| decision.listing == Listing::Listed)
    };
    UNUSED.iter().all(is_listed)
}

/// The meaning of the parameter, its kind of value, and its default.
pub fn advice(param: &Param) -> String {
    let mut text = format!("{} {} takes ", param.doc, param.name);
    text.push_str(match param.kind {
        "yes or no" => "\"yes\" or \"no\"",
        "time" => "a time (30s, 5m, 2h, 1d, 1w)",
        "number" => "a whole number",
        "keyword" | "keywords" => "words from a fixed list",
        other => other,
    });
    match (param.kind, param.min, param.max) {
        (_, 0, 0) => {}
        ("text" | "path" | "host name" | "level" | "facility" | "keyword" | "keywords", 1, 0) => {
            text.push_str(", and may not be empty");
        }
        ("time", min, 0) => text.push_str(&format!(" of at least {min}s")),
        (_, min, 0) => text.push_str(&format!(", at least {min}")),
        (_, min, max) => text.push_str(&format!(", from {min} to {max}")),
    }
    match param.default {
        DefaultValue::Text("") => text.push_str("; its default is empty"),
        DefaultValue::Text(default) => text.push_str(&format!("; its default is {default}")),
        DefaultValue::Computed(_) => text.push_str("; its default depends on this machine"),
        DefaultValue::Fixed(_) => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TABLE;
    use crate::config::tests::config;

    #[test]
    fn what_comes_to_the_default_is_not_changed() {
        let config = config(
            "soft_bounce = no\nqmqpd_timeout = ${x}300s\nmyhostname = a.example\nqmqpd_error_delay = 2s\nx =\n",
        );
        assert_eq!(changed(&config, "soft_bounce"), None);
        assert_eq!(changed(&config, "qmqpd_timeout"), None);
        assert_eq!(changed(&config, "qmqpd_client_port_logging"), None);
        assert_eq!(changed(&config, "qmqpd_error_delay").as_deref(), Some("2s"));
    }

    #[test]
    fn advice_names_form_bounds_and_default() {
        let of = |name: &str| {
            let param = TABLE.iter().find(|param| param.name == name).unwrap();
            advice(param)
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
            assert_eq!(of(name), expected);
        }
    }
}
