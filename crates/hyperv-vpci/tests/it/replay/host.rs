//! Replays packets recorded from foreign guests to the host's end.

use super::{Line, Ring, Section, Signal, channel, rounded, section, sections};
use crate::board::{ADDRESS, INSTANCE, SLOT};
use crate::gic::Gic;
use hyperv_vpci::channel::{Channel, Idle, PacketKind};
use hyperv_vpci::host::{Host, HostConfig, HostFunction, Injection, Served};
use hyperv_vpci::protocol::{DeviceDescription, Retarget, Version};
use msi_types::{Delivery, MsiMessage, NoIdentity, SignalMsi};
use std::sync::Arc;

fn function(serial: u32) -> HostFunction {
    let description = DeviceDescription {
        vendor: 0x1414,
        device: 7,
        class: 2,
        subclass: 0x80,
        serial,
        slot: SLOT,
        node: Some(1),
        ..DeviceDescription::default()
    };
    HostFunction::new(description, [0xffff_0000, 0, 0, 0, 0, 0])
}

/// Local APICs that accept any message.
struct Apics;

impl SignalMsi<NoIdentity> for Apics {
    fn signal_msi(&self, _: NoIdentity, _: MsiMessage) -> Delivery {
        Delivery::Pending
    }
}

fn apics() -> Injection {
    fn message(processor: u16, vector: u8) -> MsiMessage {
        MsiMessage { address: u64::from(processor), data: vector.into() }
    }
    Injection::Apic { signal: Arc::new(Apics), message }
}

struct Replay {
    host: Host,
    /// Channel of the host. The recorded guest sends on the other end.
    far: Ring,
    near: Ring,
    to_guest: Signal,
    to_host: Signal,
    serial: u32,
    /// `true` if the guest sleeps, so that the next packet must raise a signal.
    sleeps: bool,
}

impl Replay {
    fn new(highest: Version, injection: Injection) -> Self {
        let ([near, far], [to_guest, to_host]) = channel();
        let config = HostConfig::new(128, ADDRESS, INSTANCE).with_highest(highest);
        let mut host = Host::new(config, injection).unwrap();
        host.offer(function(9)).unwrap();
        Self { host, far, near, to_guest, to_host, serial: 9, sleeps: false }
    }

    fn serve(&mut self) {
        while self.host.serve(&mut self.far).unwrap() == Served::More {}
    }

    fn call(&mut self, what: &str) {
        match what {
            "eject" => self.host.eject(SLOT).unwrap(),
            "remove" => self.host.remove(SLOT).unwrap(),
            "offer" => {
                self.serial += 1;
                self.host.offer(function(self.serial)).unwrap();
            }
            other => panic!("{other}"),
        }
        self.serve();
    }

    /// Receives the host's next packet, as a guest that sleeps until it is signaled.
    fn hear(&mut self) -> Option<(PacketKind, Vec<u8>)> {
        if self.sleeps && !self.to_guest.take() {
            return None;
        }
        self.sleeps = false;
        let mut buffer = [0; 512];
        let received = self.near.receive(&mut buffer).unwrap();
        received.map(|received| (received.kind, buffer[..received.length].to_vec()))
    }

    fn sleep(&mut self) {
        self.to_guest.take();
        self.sleeps = self.near.idle().unwrap() == Idle::Sleep;
    }

    fn run(mut self, section: &Section) {
        let mut status = None;
        let mut lines = section.lines.iter().enumerate().peekable();
        while let Some((number, line)) = lines.next() {
            let place = format!("section {}, line {number}: {line:x?}", section.name);
            match line {
                Line::Guest(kind, bytes) => {
                    self.near.send(*kind, bytes).unwrap();
                    assert!(self.to_host.take(), "the host is not signaled: {place}");
                    self.serve();
                }
                Line::Host(kind, bytes) => {
                    let heard = self.hear();
                    assert_eq!(heard, Some((*kind, rounded(bytes))), "{place}");
                }
                Line::Hypercall(control, bytes) => {
                    assert_eq!(Retarget::input_length(*control), bytes.len(), "{place}");
                    status = Some(self.host.retarget(bytes));
                }
                Line::Status(wanted) => assert_eq!(status.take(), Some(*wanted), "{place}"),
                Line::Call(what) => self.call(what),
            }
            if !matches!(lines.peek(), Some((_, Line::Host(..)))) {
                assert_eq!(self.near.receive(&mut [0; 512]), Ok(None), "{place}");
                self.sleep();
            }
        }
    }
}

#[test]
fn the_host_serves_a_recorded_openvmm_client() {
    let text = include_str!("data/openvmm-client.txt");
    let injection = Injection::Spi(Arc::new(Gic::new(1020, 4)));
    Replay::new(Version::V1_4, injection).run(&section(text, "whole"));
    Replay::new(Version::V1_4, apics()).run(&section(text, "x86"));
}

fn highest(section: &Section) -> Version {
    let minor = section.name.get(2..3).and_then(|minor| minor.parse::<u32>().ok());
    minor.and_then(|minor| Version::from_wire(0x1_0000 | minor)).expect("a named version")
}

#[test]
fn the_host_serves_the_packets_of_linux_on_arm64() {
    let sections = sections(include_str!("data/linux-arm64.txt"));
    assert_eq!(sections.len(), 4);
    for section in sections {
        let injection = Injection::Spi(Arc::new(Gic::new(1020, 4)));
        Replay::new(highest(&section), injection).run(&section);
    }
}

#[test]
fn the_host_serves_the_packets_of_linux_on_x86() {
    let sections = sections(include_str!("data/linux-x86.txt"));
    assert_eq!(sections.len(), 3);
    for section in sections {
        Replay::new(highest(&section), apics()).run(&section);
    }
}
