//! What a target needs around what it tests: a main.cf, a client, access lists, a log that nobody sees.

use std::path::Path;

use crate::config::{Config, Error, Names, Override};
use crate::log::{self, Destination};
use crate::lookup::{TableSettings, Tables};
use crate::peer::Peer;

/// A client of the documentation's network.
pub fn client() -> Peer {
    Peer {
        is_name_open: false,
        name: "client.example".to_owned(),
        addr: "192.0.2.1".to_owned(),
        rfc_addr: "192.0.2.1".to_owned(),
        port: "40000".to_owned(),
        family: 2,
    }
}

/// What main.cf says, but for what it takes the machine or its files to know.
pub fn config(main_cf: &[u8]) -> Result<Config, Error> {
    let names = Names {
        process: "qmqpd".to_owned(),
        service: "628".to_owned(),
    };
    let known = [
        ("myhostname", "mail.example"),
        ("mydomain", "example"),
        ("mynetworks", "192.0.2.0/24"),
        ("myorigin", "example"),
    ];
    let overrides = known.map(|(name, value)| Override::new(name.as_bytes(), value.as_bytes()));
    let directory = Path::new("/nonexistent");
    Config::parse(directory, main_cf.to_vec(), overrides.to_vec(), names)
}

/// Tables none of which is a program's or a server's.
pub fn tables(smtputf8_enable: bool) -> Tables {
    let nowhere = Path::new("/nonexistent");
    Tables::new(TableSettings {
        smtputf8_enable,
        daemon_table_open_error_is_fatal: false,
        proxymap_service_name: "proxymap".to_owned(),
        ipc_timeout: std::time::Duration::from_secs(1),
        postmap: nowhere.join("postmap"),
        sandbox: true,
        config_directory: nowhere.to_owned(),
        meta_directory: Some(nowhere.to_owned()),
    })
}

/// Runs `target`. What it logs is one printable line each, whatever it was given.
pub fn with_log<T>(target: impl FnOnce() -> T) -> T {
    log::configure("fuzzing", Destination::Kept, true);
    let result = target();
    // Another thread's lines may be among them.
    for (_, line) in log::take_kept() {
        assert!(line.len() <= log::TEXT_LIMIT, "{line}");
        assert!(!line.bytes().any(|b| b.is_ascii_control()), "{line:?}");
    }
    result
}
