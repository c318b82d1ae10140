//! One QMQP transaction, in order: access, the request, the queue, one reply.
//!
//! [`Session::transaction`] is the protocol. A [`Fault`] ends it early, and `answer` has the reply and the log line of
//! each fault. Follows `tests/spec/qmqp.md`, sections 2, 4, 5, 8 and 9. The start of the process is left to `service`,
//! the storage of a message to `queue`.
#![forbid(unsafe_code)]

mod answer;
mod client;
mod lists;
mod reply;

pub use answer::{Busy, Outcome};
pub use client::{Client, Stream};
pub use lists::{Lists, enter_queue_directory, program_owner, try_queue_directory};

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::config::{self, Config};
use crate::jail::{self, Need};
use crate::log::{self, Shown};
use crate::lookup::Listing;
use crate::peer::Peer;
use crate::queue::{Committed, Open, Origin};
use crate::sys::time::Moment;
use crate::sys::{alarm, ignore, socket};
use crate::wire::netstring::{self, Seen};
use crate::wire::qmqp::{self, Limits, Request};
use crate::wire::verp::{self, Sender};

use answer::{Answer, CONFIGURATION_ERROR, Fault, log_all, to_fault, to_verdict};
use reply::Reply;

/// The settings that are the same for every transaction.
#[derive(Debug)]
pub struct SessionSettings {
    pub qmqpd_timeout: Duration,
    pub qmqpd_error_delay: Duration,
    pub qmqpd_client_port_logging: bool,
    pub qmqpd_disconnect_stats: bool,
    pub soft_bounce: bool,
    pub debug_peer_level: u32,
    limits: Limits,
    verp_delimiter_filter: Vec<u8>,
}

impl SessionSettings {
    pub fn from_config(config: &Config) -> Result<SessionSettings, config::Error> {
        let message_size_limit = config.message_size_limit()?;
        Ok(SessionSettings {
            limits: Limits {
                message: message_size_limit,
                // The queue counts the envelope towards its limit too: three records for a recipient that is not
                // repeated.
                envelope: message_size_limit,
                address: config.line_length_limit()?.into(),
            },
            soft_bounce: config.soft_bounce()?,
            debug_peer_level: config.debug_peer_level()?,
            verp_delimiter_filter: config.verp_delimiter_filter()?,
            qmqpd_timeout: config.qmqpd_timeout()?,
            qmqpd_error_delay: config.qmqpd_error_delay()?,
            qmqpd_client_port_logging: config.qmqpd_client_port_logging()?,
            qmqpd_disconnect_stats: config.qmqpd_disconnect_stats()?,
        })
    }
}

/// What a transaction needs besides the client's bytes.
pub struct Session<'a> {
    pub settings: &'a SessionSettings,
    pub lists: &'a Lists,
    pub method: &'a dyn Open,
    pub peer: &'a Peer,
    /// When the client connected.
    pub arrival: Moment,
    /// Gives up all rights except those needed. Called once, before the first byte of the client is parsed.
    pub confine: &'a dyn Fn(&[Need<'_>]) -> Result<(), jail::Error>,
}

/// The result of a session, for its last line.
#[derive(Debug, Default)]
struct Stats {
    /// The bytes of the message that have arrived.
    size: usize,
    /// The number of recipients that have arrived.
    nrcpt: usize,
    /// Whether the message is in the queue, even if the reply was lost.
    is_queued: bool,
    /// The status byte that was sent.
    reply: Option<char>,
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reply = self.reply.unwrap_or('-');
        let queued = u8::from(self.is_queued);
        let Stats { size, nrcpt, .. } = self;
        write!(
            f,
            " queued={queued} size={size} nrcpt={nrcpt} reply={reply}"
        )
    }
}

/// The number of bytes of a netstring's data that `-v -v` logs.
const SHOWN_DATA: usize = 30;

impl Session<'_> {
    /// Serves the client from its first log line to its last.
    pub fn run<S: Stream>(&self, client: Client<S>) -> Outcome {
        let namaddr = if self.settings.qmqpd_client_port_logging {
            self.peer.namaddr_port()
        } else {
            self.peer.namaddr()
        };
        let normal = log::verbosity();
        log::set_verbosity(normal.saturating_add(self.debug_level()));
        log::info!("connect from {namaddr}");
        let mut stats = Stats::default();
        let outcome = self.converse(client, &namaddr, &mut stats);
        if outcome != Outcome::Failed {
            if self.settings.qmqpd_disconnect_stats {
                log::info!("disconnect from {namaddr}{stats}");
            } else {
                log::info!("disconnect from {namaddr}");
            }
        }
        log::set_verbosity(normal);
        outcome
    }

    /// The transaction and the answer to it.
    fn converse<S: Stream>(
        &self,
        mut client: Client<S>,
        namaddr: &str,
        stats: &mut Stats,
    ) -> Outcome {
        let origin = Origin {
            peer: self.peer,
            namaddr,
            arrival: self.arrival,
        };
        let mut id = "NOQUEUE".to_owned();
        let result = self.transaction(&mut client, &origin, &mut id, stats);
        if timed_out(&result) && alarm::process_is_over() {
            log::fatal!("watchdog timeout");
            return Outcome::Failed;
        }
        let who = format!("{id}: {namaddr}");
        let answer = match &result {
            Ok(committed) => to_verdict(&committed.verdict, &id, &who),
            Err(fault) => to_fault(fault, namaddr, &who),
        };
        log_all(&answer.before);
        stats.is_queued = answer.reply.as_ref().is_some_and(Reply::is_accepted);
        if let Some(reply) = &answer.reply {
            let reply = reply.soft(self.settings.soft_bounce);
            if !reply.is_accepted() {
                std::thread::sleep(self.settings.qmqpd_error_delay);
            }
            trace_reply(&reply);
            match client.send(&reply) {
                Ok(()) => stats.reply = Some(reply.letter()),
                Err(error) => log::info!("{who}: {error} while {}", answer.phase),
            }
            if let Some(after_reply) = result.ok().and_then(|committed| committed.after_reply) {
                after_reply();
            }
            log_all(&answer.after);
            client.drain(&reply);
        } else {
            log_all(&answer.after);
        }
        answer.outcome
    }

    /// The protocol. `id` is the queue id, once there is one.
    fn transaction<S: Stream>(
        &self,
        client: &mut Client<S>,
        origin: &Origin<'_>,
        id: &mut String,
        stats: &mut Stats,
    ) -> Result<Committed, Fault> {
        self.authorize()?;
        client.wait_for_first_byte()?;
        let mut queue = self.method.open(origin)?;
        (self.confine)(&queue.needs()).map_err(Fault::Jail)?;
        *id = queue.queue_id()?;
        log::info!("{id}: client={}", origin.namaddr);

        let mut content = Request::begin(client, self.settings.limits, trace)?.content()?;
        while let Some(piece) = content.next()? {
            stats.size += piece.len();
            queue.content(piece);
        }
        let (sender, mut recipients) = content.sender()?;
        let sender = verp::split(&sender);
        let verp = self.check_verp(&sender);
        queue.sender(&sender);
        let mut recipient = Vec::new();
        while recipients.next(&mut recipient)? {
            stats.nrcpt += 1;
            queue.recipient(&recipient);
        }
        // Only here, as in Postfix: a request that breaks off is reported as that, even if its sender's delimiters are
        // wrong.
        verp?;
        Ok(queue.commit())
    }

    /// debug_peer_level if debug_peer_list has the client. A list that cannot be evaluated has logged it, and counts as
    /// not having the client; so does a list that depends on an open name.
    fn debug_level(&self) -> u32 {
        let list = self.lists.debug_peer_list.as_ref();
        match list.map(|list| list.match_client(self.peer.name_for_lists(), &self.peer.addr)) {
            Some(Ok(Listing::Listed)) => self.settings.debug_peer_level,
            Some(Ok(Listing::NotListed | Listing::Undecided) | Err(_)) | None => 0,
        }
    }

    fn authorize(&self) -> Result<(), Fault> {
        let list = &self.lists.qmqpd_authorized_clients;
        let listed = list.match_client(self.peer.name_for_lists(), &self.peer.addr);
        self.lists.tables.close();
        match listed {
            Ok(Listing::Listed) => Ok(()),
            Ok(Listing::NotListed) => Err(Fault::Unauthorized),
            Ok(Listing::Undecided) => Err(Fault::Name),
            Err(_) => Err(Fault::List),
        }
    }

    /// Checks the delimiters against verp_delimiter_filter, as Postfix and its queue manager do.
    fn check_verp(&self, sender: &Sender) -> Result<(), Fault> {
        match sender.verp {
            Some(delimiters)
                if !delimiters
                    .iter()
                    .all(|d| self.settings.verp_delimiter_filter.contains(d)) =>
            {
                Err(Fault::Verp {
                    delimiters,
                    allowed: self.settings.verp_delimiter_filter.clone(),
                })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Tells a client that no transaction can begin because of an error here, which has been logged. `namaddr` is the
/// client, as far as it is known.
pub fn apologize(mut client: Client, namaddr: &str) {
    let reply = Reply::try_later(CONFIGURATION_ERROR);
    if client.send(&reply).is_ok() {
        let who = format!("NOQUEUE: {namaddr}");
        log_all(&Answer::with_warning(reply.clone(), &who).before);
        client.drain(&reply);
    }
}

/// Answers a connection on which no proxy has named the client. The reply is `Z`, because the client may be in the
/// list.
pub fn refuse_proxy(mut client: Client, proxy: &str, why: &str, settings: &SessionSettings) {
    let reply = Reply::try_later(&format!("Error: {why}"));
    log::warning!("NOQUEUE: {proxy}: {}", Shown(reply.text()));
    std::thread::sleep(settings.qmqpd_error_delay);
    if client.send(&reply).is_ok() {
        client.drain(&reply);
    }
}

/// Tells a client to come again, in a process that waits for no client: a client that is sending may see a reset
/// instead of the reply. The caller logs it.
pub fn turn_away(client: &OwnedFd, busy: Busy) {
    let reply = Reply::try_later(&busy.to_string());
    ignore(socket::send_now(client.as_fd(), &reply.encode()));
}

/// The same as [`turn_away`], in the client's own process: input that has arrived is dropped, so that fewer clients see a
/// reset.
pub fn turn_away_here(mut client: Client, busy: Busy) {
    let reply = Reply::try_later(&busy.to_string());
    if let Busy::Uncounted(address) = busy {
        log::warning!("NOQUEUE: unknown[{address}]: {}", Shown(reply.text()));
    }
    if client.send(&reply).is_ok() {
        client.drop_arrived();
    }
}

/// Logs what `-v -v` shows of the request.
fn trace(seen: Seen<'_>) {
    if log::verbosity() < 2 {
        return;
    }
    match seen {
        Seen::Length(length) => log::info!("netstring_get_length: read netstring length {length}"),
        Seen::Data(data) => log::info!(
            "netstring_get_data: read netstring data {}",
            Shown(data.get(..SHOWN_DATA).unwrap_or(data))
        ),
    }
}

/// Logs what `-v -v` shows of the reply.
fn trace_reply(reply: &Reply) {
    if log::verbosity() < 2 {
        return;
    }
    let payload = reply.payload();
    log::info!(
        "netstring_put: write netstring len {} data {}",
        payload.len(),
        Shown(payload.get(..SHOWN_DATA).unwrap_or(&payload))
    );
}

fn timed_out(result: &Result<Committed, Fault>) -> bool {
    matches!(
        result,
        Err(Fault::Request(qmqp::Fault::Netstring(
            netstring::Error::Timeout,
            _
        )))
    )
}
