//! xHCI with a keyboard. A control transfer selects the interrupter for its completion, and
//! interrupter *n* uses vector *n*.

use crate::driver::Driver;
use crate::report::{Outcome, Verdict, check, skip};
use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering};
use image_rt::cpu;
use image_rt::lock::IrqMutex;
use image_rt::pci::{Bar, Function};
use irq_domain::pci::TableMemory;

const HCSPARAMS1: u64 = 0x04;
const DBOFF: u64 = 0x14;
const RTSOFF: u64 = 0x18;
/// Operational registers.
const USBCMD: u64 = 0x00;
const USBSTS: u64 = 0x04;
const CRCR: u64 = 0x18;
const DCBAAP: u64 = 0x30;
const CONFIG: u64 = 0x38;
const PORTSC: u64 = 0x400;
const RUN: u32 = 1;
const RESET: u32 = 2;
const INTERRUPTS: u32 = 4;
const EVENT_INTERRUPT: u32 = 1 << 3;
const NOT_READY: u32 = 1 << 11;
const CONNECTED: u32 = 1;
const PORT_RESET: u32 = 1 << 4;
const PORT_POWER: u32 = 1 << 9;
/// Runtime registers of an interrupter.
const IMAN: u64 = 0x20;
const ERSTSZ: u64 = 0x28;
const ERSTBA: u64 = 0x30;
const ERDP: u64 = 0x38;
const INTERRUPTER: u64 = 0x20;
const PENDING_AND_ENABLED: u32 = 3;
const HANDLER_BUSY: u64 = 8;

const INTERRUPTERS: u16 = 16;
/// Number of transfer request blocks in a page.
const BLOCKS: usize = 256;
const SETUP: u32 = 2;
const STATUS: u32 = 4;
const LINK: u32 = 6;
const ENABLE_SLOT: u32 = 9;
const ADDRESS_DEVICE: u32 = 11;
const TRANSFER_EVENT: u32 = 32;
const COMMAND_EVENT: u32 = 33;
const SUCCESS: u32 = 1;

type Block = [u32; 4];

#[repr(C, align(4096))]
struct Page([Block; BLOCKS]);

fn page() -> Box<Page> {
    Box::new(Page([[0; 4]; BLOCKS]))
}

fn address(page: &Page) -> u64 {
    (&raw const *page).expose_provenance() as u64
}

/// A ring that the controller reads.
struct Ring {
    page: Box<Page>,
    next: usize,
    cycle: u32,
}

impl Ring {
    fn new() -> Self {
        Self { page: page(), next: 0, cycle: 1 }
    }

    fn push(&mut self, mut block: Block) {
        block[3] |= self.cycle;
        self.page.0[self.next] = block;
        self.next += 1;
        if self.next == BLOCKS - 1 {
            let start = address(&self.page);
            let toggle = 1 << 1;
            self.page.0[self.next] =
                [start as u32, (start >> 32) as u32, 0, LINK << 10 | toggle | self.cycle];
            (self.next, self.cycle) = (0, self.cycle ^ 1);
        }
    }
}

/// A ring that the controller writes, and the last event that was read from it.
struct Events {
    page: Box<Page>,
    next: usize,
    cycle: u32,
    completion: u32,
    slot: u32,
}

impl Events {
    fn new() -> Self {
        Self { page: page(), next: 0, cycle: 1, completion: 0, slot: 0 }
    }
}

/// An xHCI controller.
pub(crate) struct Xhci {
    bar: Bar,
    operational: u64,
    runtime: u64,
    doorbells: u64,
    contexts: Box<Page>,
    input: IrqMutex<Box<Page>>,
    device: Box<Page>,
    segments: IrqMutex<Box<Page>>,
    commands: IrqMutex<Ring>,
    control: IrqMutex<Ring>,
    events: [IrqMutex<Events>; INTERRUPTERS as usize],
    /// Number of completed commands and transfers.
    completed: AtomicU64,
    slot: AtomicU64,
}

impl Xhci {
    pub(crate) fn new(function: &Function) -> Self {
        let bar = function.bar(0);
        Self {
            bar,
            operational: u64::from(bar.read32(0) & 0xff),
            runtime: bar.read32(RTSOFF).into(),
            doorbells: bar.read32(DBOFF).into(),
            contexts: page(),
            input: IrqMutex::new(page()),
            device: page(),
            segments: IrqMutex::new(page()),
            commands: IrqMutex::new(Ring::new()),
            control: IrqMutex::new(Ring::new()),
            events: core::array::from_fn(|_| IrqMutex::new(Events::new())),
            completed: AtomicU64::new(0),
            slot: AtomicU64::new(0),
        }
    }

    fn read(&self, register: u64) -> u32 {
        self.bar.read32(self.operational + register)
    }

    fn write(&self, register: u64, value: u32) {
        self.bar.write32(self.operational + register, value);
    }

    fn write_wide(&self, offset: u64, value: u64) {
        self.bar.write32(offset, value as u32);
        self.bar.write32(offset + 4, (value >> 32) as u32);
    }

    fn interrupter(&self, number: u16) -> u64 {
        self.runtime + u64::from(number) * INTERRUPTER
    }

    fn reset(&self) -> Outcome {
        self.write(USBCMD, RESET);
        let ready = cpu::wait_until(2000, || {
            self.read(USBCMD) & RESET == 0 && self.read(USBSTS) & NOT_READY == 0
        });
        check!(ready, "the controller does not come out of reset");
        Ok(())
    }

    fn set_up_rings(&self) {
        self.write(CONFIG, 1);
        self.write_wide(self.operational + DCBAAP, address(&self.contexts));
        let commands = self.commands.with(|ring| address(&ring.page));
        self.write_wide(self.operational + CRCR, commands | 1);
        for (number, events) in (0..).zip(&self.events) {
            let ring = events.with(|events| address(&events.page));
            let entry = 4 * usize::from(number);
            let table = self.segments.with(|segments| {
                segments.0[entry] = [ring as u32, (ring >> 32) as u32, BLOCKS as u32, 0];
                address(segments) + entry as u64 * 16
            });
            let base = self.interrupter(number);
            self.bar.write32(base + ERSTSZ, 1);
            self.write_wide(base + ERDP, ring);
            self.write_wide(base + ERSTBA, table);
            self.bar.write32(base + IMAN, PENDING_AND_ENABLED);
        }
        cpu::publish_stores();
        self.write(USBCMD, RUN | INTERRUPTS);
    }

    /// Resets the port with the keyboard. Returns the port's number, counted from 1, and its speed.
    fn port(&self) -> Result<(u32, u32), Verdict> {
        let ports = self.bar.read32(HCSPARAMS1) >> 24;
        let register = |port: u32| PORTSC + 16 * u64::from(port);
        let port = (0..ports).find(|port| self.read(register(*port)) & CONNECTED != 0);
        let Some(port) = port else { skip!("nothing is plugged in") };
        self.write(register(port), PORT_POWER | PORT_RESET);
        let enabled = cpu::wait_until(2000, || self.read(register(port)) & 2 != 0);
        check!(enabled, "port {port} does not come out of reset");
        Ok((port + 1, self.read(register(port)) >> 10 & 0xf))
    }

    fn command(&self, block: Block) -> Outcome {
        self.commands.with(|ring| ring.push(block));
        self.ring_and_wait(0, 0, 0)
    }

    /// Rings a doorbell, and waits for the completion event at `interrupter`.
    fn ring_and_wait(&self, slot: u32, target: u32, interrupter: u16) -> Outcome {
        let before = self.completed.load(Ordering::Acquire);
        cpu::publish_stores();
        self.bar.write32(self.doorbells + 4 * u64::from(slot), target);
        let done = cpu::wait_until(2000, || self.completed.load(Ordering::Acquire) > before);
        check!(done, "no interrupt from interrupter {interrupter}");
        let completion = self.events[usize::from(interrupter)].with(|events| events.completion);
        check!(completion == SUCCESS, "completion code {completion} at interrupter {interrupter}");
        Ok(())
    }

    fn address_device(&self) -> Outcome {
        let (port, speed) = self.port()?;
        self.command([0, 0, 0, ENABLE_SLOT << 10])?;
        let slot = self.events[0].with(|events| events.slot);
        self.slot.store(slot.into(), Ordering::Relaxed);
        let control = self.control.with(|ring| address(&ring.page));
        let high_speed = speed == 3;
        let input = self.input.with(|input| {
            input.0[0] = [0, 3, 0, 0];
            input.0[2] = [1 << 27 | speed << 20, port << 16, 0, 0];
            let most_bytes = if high_speed { 64 } else { 8 };
            input.0[4] =
                [0, most_bytes << 16 | 4 << 3 | 3 << 1, control as u32 | 1, (control >> 32) as u32];
            input.0[5] = [8, 0, 0, 0];
            address(input)
        });
        let entry = core::ptr::with_exposed_provenance_mut::<u64>(address(&self.contexts) as usize);
        // SAFETY: this is an entry of the device context base address array, which the controller
        // reads only when a command refers to it.
        unsafe { entry.add(slot as usize).write_volatile(address(&self.device)) };
        self.command([input as u32, (input >> 32) as u32, 0, ADDRESS_DEVICE << 10 | slot << 24])
    }

    fn take_events(&self, number: u16) {
        let base = self.interrupter(number);
        self.bar.write32(base + IMAN, PENDING_AND_ENABLED);
        self.write(USBSTS, EVENT_INTERRUPT);
        self.events[usize::from(number)].with(|events| {
            loop {
                // SAFETY: the entry is in the page; the controller writes to it.
                let block = unsafe { (&raw const events.page.0[events.next]).read_volatile() };
                if block[3] & 1 != events.cycle {
                    break;
                }
                events.next = (events.next + 1) % BLOCKS;
                events.cycle ^= u32::from(events.next == 0);
                if matches!(block[3] >> 10 & 0x3f, TRANSFER_EVENT | COMMAND_EVENT) {
                    (events.completion, events.slot) = (block[2] >> 24, block[3] >> 24);
                    self.completed.fetch_add(1, Ordering::Release);
                }
            }
            let at = address(&events.page) + events.next as u64 * 16;
            self.write_wide(base + ERDP, at | HANDLER_BUSY);
        });
    }
}

impl Driver for Xhci {
    fn vectors(&self) -> u16 {
        INTERRUPTERS
    }

    fn posts(&self) -> bool {
        false
    }

    fn start(&self) -> Outcome {
        self.reset()?;
        self.set_up_rings();
        self.address_device()
    }

    /// Sends `SET_CONFIGURATION 1`, whose status stage completes at the interrupter with this
    /// number.
    fn fire(&self, slot: u16) -> Result<bool, Verdict> {
        let immediate = 1 << 6;
        let (on_completion, inward) = (1 << 5, 1 << 16);
        self.control.with(|ring| {
            ring.push([0x0001_0900, 0, 8, SETUP << 10 | immediate]);
            ring.push([0, 0, u32::from(slot) << 22, STATUS << 10 | on_completion | inward]);
        });
        self.ring_and_wait(self.slot.load(Ordering::Relaxed) as u32, 1, slot)?;
        Ok(true)
    }

    fn handle(&self, slot: u16) {
        self.take_events(slot);
    }
}

impl Drop for Xhci {
    /// Stops the controller. Until the controller has stopped, it uses the rings' memory.
    fn drop(&mut self) {
        // Whether the reset succeeds does not matter.
        let _ = self.reset();
    }
}
