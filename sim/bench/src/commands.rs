//! The cost of INT commands in a long queue in QEMU (if installed), which receives lines of its
//! qtest protocol. INT has the same effect as a message that arrives at the ITS.

use crate::peers::Program;
use crate::probe::{Fallible, Probe, each, floor};
use gic_arch::its::{CollectionId, Command, MapAction, RdBase};
use gic_arch::{gicr, gits};
use msi_types::{DeviceId, EventId};
use std::fmt::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Name of the case.
pub(crate) const CASE: &str = "peer-qemu-int-command";
const PROGRAM: &str = "qemu-system-aarch64";

const RAM_BASE: u64 = 0x4000_0000;
const ITS: u64 = 0x0808_0000;
const REDISTRIBUTOR: u64 = 0x080a_0000;
const DEVICES: u64 = RAM_BASE;
const COLLECTIONS: u64 = RAM_BASE + 0x1_0000;
const CONFIGURATION: u64 = RAM_BASE + 0x2_0000;
const PENDING: u64 = RAM_BASE + 0x4_0000;
/// Room for 16 bytes per event.
const TRANSLATIONS: u64 = RAM_BASE + 0x10_0000;
const QUEUE: u64 = RAM_BASE + 0x20_0000;
const QUEUE_PAGES: u64 = 0x100;

/// Number of events of the only device. Each event is mapped to a separate LPI, and one INT per
/// event fills half of the queue.
const EVENTS: u32 = 1 << EVENT_BITS;
const EVENT_BITS: u8 = 14;
const FIRST_LPI: u32 = 8192;
const DEVICE: DeviceId = DeviceId::new(0);
const COLLECTION: CollectionId = CollectionId::new(0);
const TARGET: RdBase = RdBase::from_processor_number(0);
/// Number of command bytes per line.
const CHUNK: usize = 0x8000;
/// Maximum number of reads of `CREADR` or `GICR_CTLR` before a wait times out.
const TURNS: u32 = 10_000;

/// Returns the probe for INT, if QEMU is installed.
pub(crate) fn qemu() -> Fallible<Probe> {
    let machine =
        ["-M", "virt,gic-version=3", "-cpu", "cortex-a57", "-m", "128M", "-accel", "tcg", "-S"];
    let mut command = std::process::Command::new(PROGRAM);
    command.args(machine).args(["-display", "none", "-nodefaults"]);
    command.args(["-qtest", "stdio", "-qtest-log", "none"]).stderr(Stdio::null());
    let started = Program::start(&mut command).map_err(|error| format!("{PROGRAM}: {error}"))?;
    let mut its = ItsUnderTest(started);
    its.boot()?;
    Ok(floor(CASE, move || its.ints()))
}

/// The ITS of QEMU's machine, whose CPUs are stopped.
struct ItsUnderTest(Program);

impl ItsUnderTest {
    /// Sends a line and returns the text that follows `OK`.
    fn tell(&mut self, line: &str) -> Fallible<String> {
        let reply = self.0.ask(line).map_err(|error| format!("{PROGRAM}: {error}"))?;
        let rest = reply.strip_prefix("OK").ok_or_else(|| format!("{line:.40}: {reply}"))?;
        Ok(rest.trim_start().to_owned())
    }

    /// Maps every event, and prepares a queue with one INT per event in its first half and SYNCs in
    /// its second half.
    fn boot(&mut self) -> Fallible<()> {
        self.write32(REDISTRIBUTOR + u64::from(gicr::WAKER.offset()), 0)?;
        self.write64(REDISTRIBUTOR + u64::from(gicr::PROPBASER.offset()), CONFIGURATION | 15)?;
        self.write64(REDISTRIBUTOR + u64::from(gicr::PENDBASER.offset()), PENDING)?;
        // Configuration byte of each LPI: enabled, at medium priority.
        self.tell(&format!("memset {CONFIGURATION:#x} {EVENTS:#x} 0xa1"))?;
        self.tell(&format!("memset {DEVICES:#x} 0x20000 0"))?;
        for (table, address) in (0..).zip([DEVICES, COLLECTIONS]) {
            let register = gits::BASER.get(table).ok_or("no table")?;
            self.write64(ITS + u64::from(register.offset()), 1 << 63 | address)?;
        }
        let (device, collection) = (DEVICE, COLLECTION);
        let (itt, event_bits_minus_one, action) = (TRANSLATIONS, EVENT_BITS - 1, MapAction::Map);
        let first = [
            Command::Mapc { collection, target: TARGET, action },
            Command::Mapd { device, itt, event_bits_minus_one, action },
        ];
        let each = (0..EVENTS).map(|event| Command::Mapti {
            device,
            event: EventId::new(event),
            intid: FIRST_LPI + event,
            collection,
        });
        self.give_queue(&first.into_iter().chain(each).collect::<Vec<_>>())?;
        self.redistributor_enable(1)?;
        self.run_up_to(EVENTS + 2)?;
        self.write32(ITS + u64::from(gits::CTLR.offset()), 0)?;
        let ints = (0..EVENTS).map(|event| Command::Int { device, event: EventId::new(event) });
        let syncs = (0..EVENTS).map(|_| Command::Sync { target: TARGET });
        self.give_queue(&ints.chain(syncs).collect::<Vec<_>>())
    }

    /// Writes `commands` to the start of the queue, and resets the queue so that no command is left
    /// to execute.
    fn give_queue(&mut self, commands: &[Command]) -> Fallible<()> {
        let bytes: Vec<u8> =
            commands.iter().copied().flat_map(Command::encode).flat_map(u64::to_le_bytes).collect();
        for (chunk, at) in bytes.chunks(CHUNK).zip((QUEUE..).step_by(CHUNK)) {
            let mut line = format!("write {at:#x} {:#x} 0x", chunk.len());
            for byte in chunk {
                // Writing to a string cannot fail.
                let _ = write!(line, "{byte:02x}");
            }
            self.tell(&line)?;
        }
        self.write64(ITS + u64::from(gits::CBASER.offset()), 1 << 63 | QUEUE | (QUEUE_PAGES - 1))?;
        self.write64(ITS + u64::from(gits::CWRITER.offset()), 0)?;
        self.write32(ITS + u64::from(gits::CTLR.offset()), 1)
    }

    /// Returns the nanoseconds per INT for an LPI that isn't pending. The time includes the round
    /// trip of the protocol line, divided by the number of commands.
    fn ints(&mut self) -> Fallible<f64> {
        self.redistributor_enable(0)?;
        self.tell(&format!("memset {PENDING:#x} 0x10000 0"))?;
        self.redistributor_enable(1)?;
        let spent = self.run_up_to(EVENTS)?;
        self.redistributor_enable(0)?;
        let (at, bytes) = (PENDING + u64::from(FIRST_LPI / 8), EVENTS / 8);
        let pending = self.tell(&format!("read {at:#x} {bytes:#x}"))?;
        if pending.strip_prefix("0x").is_none_or(|digits| !digits.trim_matches('f').is_empty()) {
            return Err("not every INT made its LPI pending".into());
        }
        self.run_up_to(0)?;
        Ok(each(spent, EVENTS))
    }

    /// Lets the ITS execute the queue up to `command`, and returns the elapsed time.
    fn run_up_to(&mut self, command: u32) -> Fallible<Duration> {
        let end = u64::from(command) * 32;
        let start = Instant::now();
        self.write64(ITS + u64::from(gits::CWRITER.offset()), end)?;
        self.wait(ITS + u64::from(gits::CREADR.offset()), |creadr| creadr == end)?;
        Ok(start.elapsed())
    }

    fn redistributor_enable(&mut self, lpis: u32) -> Fallible<()> {
        const RWP: u64 = 1 << 3;
        let ctlr = REDISTRIBUTOR + u64::from(gicr::CTLR.offset());
        self.write32(ctlr, lpis)?;
        self.wait(ctlr, |ctlr| ctlr & RWP == 0)
    }

    fn wait(&mut self, register: u64, is_done: impl Fn(u64) -> bool) -> Fallible<()> {
        for _ in 0..TURNS {
            let value = self.tell(&format!("readq {register:#x}"))?;
            let digits = value.strip_prefix("0x").ok_or("no number")?;
            if is_done(u64::from_str_radix(digits, 16)?) {
                return Ok(());
            }
        }
        Err(format!("timeout: the register at {register:#x} does not report completion").into())
    }

    fn write32(&mut self, address: u64, value: u32) -> Fallible<()> {
        self.tell(&format!("writel {address:#x} {value:#x}")).map(drop)
    }

    fn write64(&mut self, address: u64, value: u64) -> Fallible<()> {
        self.tell(&format!("writeq {address:#x} {value:#x}")).map(drop)
    }
}
