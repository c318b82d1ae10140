//! What all ways of launching have in common: parameters and lists, the rights that are given up, one client served.
//!
//! Resident processes prepare once and serve in children. Follows `tests/spec/master.md`, section 3; the order within
//! a session is `session`'s.

use std::cell::OnceCell;
use std::net::IpAddr;
#[cfg(debug_assertions)]
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use crate::command;
use crate::config::{self, Config, Owner, ProxyProtocol};
use crate::exit::Fatal;
use crate::jail;
#[cfg(debug_assertions)]
use crate::jail::Need;
use crate::log;
use crate::options::{self, Options};
use crate::peer::upstream::{self, OtherEnd};
use crate::peer::{self, Ask, LOOKUP_LIMIT, Peer};
use crate::queue::Method;
use crate::session::{
    self, Busy, Client, Lists, Outcome, Session, SessionSettings, enter_queue_directory,
    try_queue_directory,
};
#[cfg(debug_assertions)]
use crate::sys::escape::{self, Held, Place};
use crate::sys::time::Moment;
use crate::sys::{alarm, inherit};
use crate::wire::proxy_header::Header;

use super::share::Asker;

/// Who made the connection that is on descriptor 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launch {
    /// A launcher, whose environment may name the client.
    Stdin,
    /// The resident process under master(8).
    Master,
    /// The resident process of `--accept`.
    Accept,
}

/// What main.cf decides for every client, evaluated and opened before there is a client.
pub struct Server<'a> {
    config: &'a Config,
    launch: Launch,
    settings: SessionSettings,
    method: Method,
    lists: Lists,
    ask: Ask,
    /// The limit for a proxy's header; `None` without a proxy.
    proxy_timeout: Option<Duration>,
    sandbox: bool,
    daemon_timeout: Duration,
    /// mail_owner, after its first lookup.
    owner: OnceCell<Owner>,
}

impl<'a> Server<'a> {
    /// Evaluates the parameters, and opens the access lists with the rights of the start.
    pub fn prepare(config: &'a Config, launch: Launch) -> Result<Self, Fatal> {
        let settings = SessionSettings::from_config(config)?;
        let mut method = Method::from_config(config)?;
        if launch == Launch::Master {
            method.leave_waking();
        }
        let server = Server {
            config,
            launch,
            settings,
            method,
            daemon_timeout: config.daemon_timeout()?,
            sandbox: config.qmqpd_sandbox()?,
            ask: Ask {
                protocols: config.inet_protocols()?,
                names: config.qmqpd_peername_lookup()?,
                environment: launch == Launch::Stdin,
                sandbox: config.qmqpd_sandbox()?,
                lookup_limit: LOOKUP_LIMIT,
            },
            proxy_timeout: match config.qmqpd_upstream_proxy_protocol()? {
                ProxyProtocol::None => None,
                ProxyProtocol::Haproxy => Some(config.qmqpd_upstream_proxy_timeout()?),
            },
            lists: {
                try_queue_directory(config)?;
                Lists::open(config)?
            },
            owner: OnceCell::new(),
        };
        match launch {
            Launch::Stdin if !server.lists.tables.is_empty() => {
                let addr = server.known_address();
                server
                    .lists
                    .begin(addr.as_deref(), &|| server.program_owner());
            }
            Launch::Stdin => {}
            Launch::Master | Launch::Accept => server.lists.tables.take_snapshots(),
        }
        Ok(server)
    }

    /// Wakes the queue manager, in a process whose child has queued a message.
    pub fn announce(&self) {
        self.method.wake();
    }

    /// Whether this address is in qmqpd_upstream_proxy_clients.
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        let address = address.to_canonical().to_string();
        self.lists.has_proxy(Some(&address))
    }

    pub fn daemon_timeout(&self) -> Duration {
        self.daemon_timeout
    }

    /// The name of a table that has changed on disk since the lists were opened.
    pub fn changed_table(&self) -> Option<String> {
        self.lists.tables.changed_table()
    }

    /// Gives up, in a process that does not serve clients itself, the system calls that its children do not need. Not
    /// done if children start programs, for the queue or for a table: those need other calls.
    pub fn confine_resident(&self, options: &Options) -> Result<(), Fatal> {
        let starts_programs = self.method.starts_a_program() || self.asks_programs(options);
        if self.sandbox && !starts_programs {
            jail::confine_resident().map_err(Fatal::from_display)?;
        }
        #[cfg(debug_assertions)]
        try_to_escape(Place::Resident);
        Ok(())
    }

    /// Whether a child of the resident process starts a program to read a table. In a chroot there is no such program.
    fn asks_programs(&self, options: &Options) -> bool {
        self.launch != Launch::Stdin && !options.chroot && self.lists.tables.run_programs()
    }

    /// Enters queue_directory, and becomes mail_owner if the process is root, with or without `-u`.
    ///
    /// Unlike Postfix, which refuses to serve Internet clients as another user than mail_owner: a launcher that cannot
    /// change users must not end in a server that runs as root, or in none (`tests/spec/differences.md`, 13).
    pub fn enter(&self, options: &Options) -> Result<(), Fatal> {
        let queue_directory = self.config.queue_directory()?;
        enter_queue_directory(&queue_directory)?;
        let root = options.chroot.then_some(queue_directory.as_path());
        if nix::unistd::geteuid().is_root() {
            let owner = self.mail_owner()?;
            jail::drop_privileges(&owner, root).map_err(Fatal::from_display)?;
            let root = root.unwrap_or(Path::new("(none)")).display();
            log::debug!(2, "chroot {root} user {}", owner.name);
            return Ok(());
        }
        if inherit::is_in_group_of_root().map_err(Fatal::from_display)? {
            log::warning!("{}", jail::GROUP_OF_ROOT);
        }
        match root {
            Some(root) => Err(Fatal::Text(format!(
                "chroot({}): Operation not permitted",
                root.display()
            ))),
            None => jail::drop_capabilities().map_err(Fatal::from_display),
        }
    }

    fn mail_owner(&self) -> Result<Owner, config::Error> {
        if let Some(owner) = self.owner.get() {
            return Ok(owner.clone());
        }
        let owner = match self.launch {
            Launch::Stdin => self.config.mail_owner_ids(),
            Launch::Master | Launch::Accept => self.config.mail_owner_ids_apart(),
        }?;
        Ok(self.owner.get_or_init(|| owner).clone())
    }

    /// The same as [`session::program_owner`], with one lookup of mail_owner.
    fn program_owner(&self) -> Result<Option<Owner>, config::Error> {
        inherit::has_root().then(|| self.mail_owner()).transpose()
    }

    /// Serves the client on descriptors 0 and 1, within daemon_timeout. `asker` asks the process that accepts about a client
    /// that a proxy names.
    pub fn serve_client(&self, options: &Options, asker: Option<Asker>) -> Result<Outcome, Fatal> {
        if let Some(argument) = &options.stray {
            let error = options::Error::Argument(argument.clone());
            command::misuse(&error);
            return Err(Fatal::from_display(error));
        }
        alarm::limit_process(self.daemon_timeout);
        let arrival = Moment::now();
        if self.asks_programs(options) {
            let addr = self.known_address();
            self.lists.begin(addr.as_deref(), &|| self.program_owner());
        }
        let found = self.find_client(asker);
        let peer = match found {
            Found::Client(peer) => peer?,
            Found::TooMany(busy) => {
                session::turn_away_here(self.take_client()?, busy);
                return Ok(Outcome::Served);
            }
            Found::Check => return Ok(Outcome::Served),
            Found::Unnamed { proxy, why } => {
                session::refuse_proxy(self.take_client()?, &proxy, &why, &self.settings);
                return Ok(Outcome::Served);
            }
        };
        let client = self.take_client()?;
        let session = Session {
            settings: &self.settings,
            lists: &self.lists,
            method: &self.method,
            peer: &peer,
            arrival,
            confine: &|needs| {
                log::stay_with_connection();
                if self.sandbox {
                    jail::confine(needs)?;
                }
                #[cfg(debug_assertions)]
                try_to_escape_with(needs);
                Ok(())
            },
        };
        Ok(session.run(client))
    }

    fn take_client(&self) -> Result<Client, Fatal> {
        let Some(descriptors) = inherit::client() else {
            return Err(Fatal::Text("no client on standard input".to_owned()));
        };
        Ok(Client::new(descriptors, self.settings.qmqpd_timeout))
    }

    /// The client's address, if it is known before the first byte.
    fn known_address(&self) -> Option<String> {
        match self.proxy_timeout {
            None => peer::address_of(inherit::client_input(), &self.ask),
            Some(_) => None,
        }
    }

    fn find_client(&self, asker: Option<Asker>) -> Found {
        let input = inherit::client_input();
        let Some(limit) = self.proxy_timeout else {
            return Found::Client(Peer::of(input, &self.ask));
        };
        let address = match upstream::other_end(input) {
            Ok(OtherEnd::Address(address)) => Some(address.to_string()),
            Ok(OtherEnd::Elsewhere) => None,
            Ok(OtherEnd::Gone) => {
                log::debug!(1, "connection reset before the PROXY header");
                return Found::Check;
            }
            Err(error) => return Found::Client(Err(error)),
        };
        let shown = address.as_deref().unwrap_or("unknown");
        let unnamed = |why| {
            let proxy = format!("unknown[{shown}]");
            Found::Unnamed { proxy, why }
        };
        if !self.lists.has_proxy(address.as_deref()) {
            return unnamed(format!("{shown} may not send a PROXY header"));
        }
        match upstream::read_header(input, limit) {
            Ok(Header::Client { address, port }) => {
                log::debug!(1, "proxy {shown} passes on {address} port {port}");
                if let Some(Err(busy)) = asker.map(|asker| asker.ask(address)) {
                    return Found::TooMany(busy);
                }
                Found::Client(Peer::remote(address, Some(port), &self.ask))
            }
            // Unlike Postfix, which serves it as the proxy's own connection (`tests/spec/differences.md`, 58).
            Ok(Header::Check) => {
                log::debug!(1, "proxy {shown} checks the service");
                Found::Check
            }
            Ok(Header::Unknown) => unnamed("PROXY header without a client's address".to_owned()),
            Err(fault) => unnamed(fault.to_string()),
        }
    }
}

/// What is known of the client of a connection.
enum Found {
    Client(Result<Peer, peer::Error>),
    /// The client has as many connections as it may have, or could not be counted.
    TooMany(Busy),
    /// A proxy's health check: there is no client.
    Check,
    /// No proxy that may name clients has named one.
    Unnamed {
        proxy: String,
        why: String,
    },
}

/// Logs the warnings about main.cf that are new since the last call.
pub fn log_warnings(config: &Config) {
    for warning in config.take_warnings() {
        log::warning!("{warning}");
    }
}

/// The same as [`try_to_escape`], in a confined process with these needs.
#[cfg(debug_assertions)]
fn try_to_escape_with(needs: &[Need<'_>]) {
    for need in needs {
        match need {
            Need::File(fd) => escape::hold(Held::File, fd.as_raw_fd()),
            Need::Unlink(fd) => escape::hold(Held::Directory, fd.as_raw_fd()),
            Need::Connect(fd, _) => escape::hold(Held::Socket, fd.as_raw_fd()),
            Need::Wait(_) => {}
        }
    }
    try_to_escape(Place::Session);
}

/// Makes the attempt that the environment names, which a test expects to fail. Not in a release build.
#[cfg(debug_assertions)]
fn try_to_escape(place: Place) {
    if let Some(line) = escape::outcome(place) {
        log::info!("{line}");
    }
}
