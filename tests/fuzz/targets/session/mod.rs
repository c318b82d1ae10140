//! A whole session over streams in memory, with a queue that fails where it is told to.
//!
//! Promised: one reply at most, in one write; `K` if and only if the queue has committed the message; what it has
//! committed is what an obvious reader finds in the request; and whatever else there is to say, said exactly.

mod world;

use crate::jail;
use crate::lookup::{MatchList, parent_style};
use crate::queue::Verdict;
use crate::session::{Client, Lists, Outcome, Session, SessionSettings};
use crate::sys::time::Moment;
use crate::wire::netstring::encode;
use crate::wire::qmqp::Limits;
use crate::wire::verp;

use super::input::Input;
use super::obvious::request::{self as obvious, Parts};
use super::surroundings::{client, config, tables, with_log};

use world::{End, Event, Listed, Memory, Message, Opens, Plan, Taken, World};

const LIST: &str = "qmqpd_authorized_clients";

/// The least that line_length_limit can be.
const ADDRESS_LIMIT: u64 = 512;

/// Choices that make a [`Plan`], then what the client sends.
pub fn session(data: &[u8]) {
    let mut input = Input(data);
    let plan = Plan::read(&mut input);
    let world = World::new(plan, input.0);
    let outcome = with_log(|| run(&world));
    check(&world, outcome);
}

fn run(world: &World) -> Outcome {
    let plan = &world.0.plan;
    let main_cf = format!(
        "message_size_limit={}\nline_length_limit={ADDRESS_LIMIT}\nverp_delimiter_filter={}\n\
         soft_bounce={}\nqmqpd_error_delay=0\n",
        plan.message_limit,
        plan.verp_delimiter_filter,
        if plan.soft_bounce { "yes" } else { "no" },
    );
    let list = match plan.listed {
        Listed::Yes => "192.0.2.1",
        Listed::No => "192.0.2.2",
        Listed::CannotTell => "fail:x",
    };
    let mut tables = tables(true);
    let parents = parent_style("", LIST, &mut tables).unwrap();
    let session = Session {
        settings: &SessionSettings::from_config(&config(main_cf.as_bytes()).unwrap()).unwrap(),
        lists: &Lists {
            qmqpd_authorized_clients: MatchList::from_patterns(LIST, list, parents, &mut tables)
                .unwrap(),
            debug_peer_list: None,
            qmqpd_upstream_proxy_clients: None,
            tables,
        },
        method: world,
        peer: &client(),
        arrival: Moment { secs: 0, usecs: 0 },
        confine: &|_| {
            world.note(Event::Confined);
            if world.0.plan.is_confined {
                Ok(())
            } else {
                Err(jail::Error::Call(String::new(), nix::errno::Errno::EPERM))
            }
        },
    };
    session.run(Client::on(Memory::new(world), Memory::new(world)))
}

fn check(world: &World, outcome: Outcome) {
    let plan = &world.0.plan;
    let events = world.0.events.borrow();
    check_order(&events, plan);
    let message = Message::of(&events);
    let request = request(world);
    let opens = plan.listed == Listed::Yes && plan.opens != Opens::No && !world.0.input.is_empty();
    assert_eq!(message.was_opened, opens);
    let failed = plan.listed == Listed::Yes && message.was_opened && !plan.is_confined;
    assert_eq!(outcome == Outcome::Failed, failed);

    let may_commit = message.was_opened && plan.opens == Opens::Yes && plan.is_confined;
    let expected = match &request {
        _ if plan.listed == Listed::No => {
            let text = "client.example[192.0.2.1] is not authorized to use this service";
            Some(format!("DError: {text}").into_bytes())
        }
        _ if plan.listed == Listed::CannotTell || failed => {
            Some(b"ZError: server configuration error".to_vec())
        }
        Err(sentence) if !message.was_opened && world.0.input.is_empty() => said(sentence),
        _ if plan.opens != Opens::Yes => Some(b"ZError: queue service unavailable".to_vec()),
        Err(sentence) => said(sentence),
        Ok(parts) => Some(verdict(parts, plan)),
    };
    let is_allowed = |parts| refused_delimiters(parts, plan).is_none();
    let committed = may_commit && request.as_ref().is_ok_and(is_allowed);
    assert_eq!(message.is_committed, committed);
    if committed {
        let parts = request.unwrap();
        assert_eq!(message.content, parts.content);
        assert_eq!(message.sender.as_ref().unwrap().wire(), parts.sender);
        assert_eq!(message.recipients, parts.recipients);
    }
    check_reply(
        world,
        &events,
        expected,
        committed && plan.verdict() == Verdict::Queued,
    );
}

/// What an obvious reader makes of the bytes, and of their end.
fn request(world: &World) -> Result<Parts, String> {
    let plan = &world.0.plan;
    let limit = Some(plan.message_limit).filter(|&limit| limit > 0);
    let limits = Limits {
        message: limit,
        envelope: limit,
        address: ADDRESS_LIMIT,
    };
    let parsed = obvious::parse(&world.0.input, limits);
    parsed.map_err(|sentence| match plan.end {
        End::TimedOut => sentence.replace("lost connection", "read/write timeout"),
        End::Eof | End::Reset => sentence,
    })
}

/// What the client is told of a request that is none.
fn said(sentence: &str) -> Option<Vec<u8>> {
    if sentence.starts_with("lost") || sentence.starts_with("read/write") {
        return None;
    }
    let text = match sentence.strip_prefix(obvious::ADDRESS) {
        Some(rest) if rest.contains("sender") => "Error: CR, LF or NUL in sender address",
        Some(_) => "Error: CR, LF or NUL in recipient address",
        None if sentence == obvious::ENVELOPE => "Error: envelope too large",
        None => sentence,
    };
    Some(format!("D{text}").into_bytes())
}

/// What the client is told of a complete request.
fn verdict(parts: &Parts, plan: &Plan) -> Vec<u8> {
    if let Some(delimiters) = refused_delimiters(parts, plan) {
        let allowed = plan.verp_delimiter_filter.as_bytes();
        let need = b"\". Need two characters from \"";
        let text = b"DError: Invalid VERP delimiters: \"";
        return [text, delimiters.as_slice(), need, allowed, b"\""].concat();
    }
    let text: &[u8] = match plan.verdict() {
        Verdict::Queued => b"KOk: queued as 4F1",
        Verdict::Deferred(_) => b"ZError: 4.7.1 later",
        Verdict::Rejected(reason) if reason.starts_with(b"4") => b"ZError: 4.7.1 perhaps",
        Verdict::Rejected(_) => b"DError: 5.7.1 never\nyours",
        Verdict::TooLarge => b"DError: message too large",
        Verdict::TooManyHops => b"DError: too many hops",
        Verdict::WriteError => b"ZError: queue file write error",
        Verdict::NoRecipients => b"DError: no recipients specified",
        Verdict::Refused(_) => b"Drefused",
        Verdict::Failed(_) => b"Zfailed",
        Verdict::Internal(_) => b"ZError: internal error 5",
    };
    text.to_vec()
}

/// The delimiters that the sender asks for, where it may not.
fn refused_delimiters(parts: &Parts, plan: &Plan) -> Option<[u8; 2]> {
    let allowed = plan.verp_delimiter_filter.as_bytes();
    let delimiters = verp::split(&parts.sender).verp?;
    let is_refused = delimiters.iter().any(|d| !allowed.contains(d));
    is_refused.then_some(delimiters)
}

/// Before rights are given up nothing of the client's is read; before the reply, or for it, nothing is left out.
fn check_order(events: &[Event], plan: &Plan) {
    let at = |wanted: fn(&Event) -> bool| events.iter().position(wanted);
    let count = |wanted: fn(&Event) -> bool| events.iter().filter(|event| wanted(event)).count();
    let opened = at(|event| matches!(event, Event::Opened));
    let confined = at(|event| matches!(event, Event::Confined));
    assert_eq!(opened.map(|at| at + 1), confined);
    assert!(count(|event| matches!(event, Event::Opened)) <= 1);
    assert!(opened.is_none() || plan.listed == Listed::Yes && plan.opens != Opens::No);
    let read = at(|event| matches!(event, Event::Read));
    let said = at(|event| matches!(event, Event::Said(_)));
    if let Some(read) = read.filter(|&read| said.is_none_or(|said| read < said)) {
        assert!(confined.is_some_and(|confined| confined < read));
    }
    assert!(count(|event| matches!(event, Event::Committed)) <= 1);
    let after = count(|event| matches!(event, Event::AfterReply));
    let committed = count(|event| matches!(event, Event::Committed));
    assert_eq!(
        after, committed,
        "what is left to do after the reply is done"
    );
}

fn check_reply(world: &World, events: &[Event], expected: Option<Vec<u8>>, is_queued: bool) {
    let plan = &world.0.plan;
    let said: Vec<&[u8]> = events
        .iter()
        .filter_map(|event| match event {
            Event::Said(bytes) => Some(bytes.as_slice()),
            _ => None,
        })
        .collect();
    let printable = |b: u8| if b.is_ascii_control() { b'?' } else { b };
    let expected = expected.map_or_else(Vec::new, |text| {
        let mut text: Vec<u8> = text.into_iter().map(printable).collect();
        if plan.soft_bounce && text.starts_with(b"D") {
            text[0] = b'Z';
        }
        encode(&text)
    });
    if plan.taken == Taken::Nothing {
        assert!(said.is_empty());
    } else {
        let said = said.concat();
        assert_eq!(said, expected, "{}", String::from_utf8_lossy(&said));
        let payload = said.splitn(2, |&b| b == b':').nth(1).unwrap_or_default();
        assert_eq!(payload.starts_with(b"K"), is_queued);
    }
    if plan.taken == Taken::Whole {
        assert_eq!(said.len(), usize::from(!expected.is_empty()), "one write");
    }
    let after_the_end = events
        .iter()
        .skip_while(|event| !matches!(event, Event::Ended))
        .any(|event| matches!(event, Event::Said(_)));
    assert!(!after_the_end);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::random;
    use crate::fuzzing::request::tests::sample;

    #[test]
    fn sessions_go_as_planned() {
        random::run("session", session, |random| {
            let mut input: Vec<u8> = (0..10).map(|_| 0).collect();
            while random.below(2) == 0 {
                input[random.below(10)] = random.byte();
            }
            input.extend(sample(random));
            input
        });
    }
}
