//! Replays packets of foreign ends to both ends: packets recorded from OpenVMM, and sequences taken
//! from Linux's driver. Each end sleeps until it is signaled.

mod guest;
mod host;

use hyperv_vpci::channel::PacketKind;
use hyperv_vpci::ring::{HeapRing, RingChannel};
use std::num::NonZeroU8;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Line of a recording.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Line {
    Guest(PacketKind, Vec<u8>),
    Host(PacketKind, Vec<u8>),
    /// Control word and input.
    Hypercall(u64, Vec<u8>),
    Status(u16),
    /// An action of the VMM.
    Call(String),
}

pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) lines: Vec<Line>,
}

pub(crate) fn sections(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("== ") {
            sections.push(Section { name: name.to_owned(), lines: Vec::new() });
        } else {
            let section = sections.last_mut().expect("a section precedes its lines");
            section.lines.push(parse(line).unwrap_or_else(|| panic!("{line}")));
        }
    }
    sections
}

/// Returns the section with this name.
pub(crate) fn section(text: &str, name: &str) -> Section {
    sections(text).into_iter().find(|section| section.name == name).expect("a recorded section")
}

fn parse(line: &str) -> Option<Line> {
    let mut words = line.split(' ');
    let (from, what) = (words.next()?, words.next()?);
    if from == "call" {
        return Some(Line::Call(what.to_owned()));
    }
    let number = if what == "notice" { 0 } else { words.next()?.parse().ok()? };
    let length = words.next()?.parse().ok()?;
    let mut bytes = words.map(bytes_of).collect::<Option<Vec<_>>>()?.concat();
    if bytes.len() > length {
        assert!(bytes.split_off(length).iter().all(|byte| *byte == 0), "{line}");
    }
    bytes.resize(length, 0);
    let kind = match what {
        "request" => PacketKind::Request(number),
        "completion" => PacketKind::Completion(number),
        _ => PacketKind::Notice,
    };
    match (from, what) {
        ("guest", "hypercall") => Some(Line::Hypercall(number, bytes)),
        ("host", "status") => Some(Line::Status(u16::try_from(number).ok()?)),
        ("guest", _) => Some(Line::Guest(kind, bytes)),
        ("host", _) => Some(Line::Host(kind, bytes)),
        _ => None,
    }
}

fn bytes_of(word: &str) -> Option<Vec<u8>> {
    let digit = |at: usize| u8::from_str_radix(word.get(at..at + 2)?, 16).ok();
    (0..word.len()).step_by(2).map(digit).collect()
}

/// Returns a payload as a ring delivers it, padded to a multiple of 8 bytes.
pub(crate) fn rounded(payload: &[u8]) -> Vec<u8> {
    let mut payload = payload.to_vec();
    payload.resize(payload.len().next_multiple_of(8), 0);
    payload
}

/// A signal that stays pending until it is consumed.
#[derive(Clone, Default)]
pub(crate) struct Signal(Arc<AtomicBool>);

impl Signal {
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, SeqCst)
    }
}

pub(crate) type Ring = RingChannel<HeapRing, Box<dyn Fn() + Send>>;

/// Creates a channel. Returns the guest's and the host's end, and the signals to the guest and to
/// the host.
pub(crate) fn channel() -> ([Ring; 2], [Signal; 2]) {
    let ring = || HeapRing::new(NonZeroU8::new(4).unwrap()).unwrap();
    let (there, back) = (ring(), ring());
    let (to_guest, to_host) = (Signal::default(), Signal::default());
    let end = |out: &HeapRing, inp: &HeapRing, signal: &Signal| {
        let Signal(signal) = signal.clone();
        let raise: Box<dyn Fn() + Send> = Box::new(move || signal.store(true, SeqCst));
        RingChannel::new(out.clone(), inp.clone(), raise).unwrap()
    };
    ([end(&there, &back, &to_host), end(&back, &there, &to_guest)], [to_guest, to_host])
}
