//! Tests DMA isolation: makes a device of this guest, QEMU's NVMe controller, read and write memory
//! outside the guest, at the address on the command line. The suite checks that memory afterwards.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use doorbell_facts::{Fact, StrayDmaFact};
use image_rt::pci::{self, Bar};
use image_rt::start::{self, Started};
use image_rt::{Boot, cpu, power, println};
use irq_domain::pci::TableMemory;

image_rt::image!(main);

/// Vendor and device ID of QEMU's NVMe controller.
const VENDOR: u16 = 0x1b36;
const DEVICE: u16 = 0x0010;
/// Registers and their fields (NVM Express Base Specification, 3.1).
const CC: u64 = 0x14;
const CSTS: u64 = 0x1c;
const AQA: u64 = 0x24;
const ASQ: u64 = 0x28;
const ACQ: u64 = 0x30;
const DOORBELL: u64 = 0x1000;
/// The controller is enabled, with queue entries of 64 and 16 bytes.
const CC_ENABLED: u32 = 1 | 6 << 16 | 4 << 20;
const DEPTH: usize = 16;

/// Opcodes of commands that the controller itself executes, with their dword 10 (5.17, 5.27).
const IDENTIFY: (u32, u32) = (0x06, 1);
const SET_TIMESTAMP: (u32, u32) = (0x09, 0x0e);

fn main(boot: Boot) -> ! {
    // SAFETY: `boot` is the value that the entry point received, and `main` is called only once.
    let around = unsafe { start::start(boot) };
    let outside = address(&around).expect("the command line must contain an address");
    let mut controller =
        Controller::start(bar(&around).expect("the machine has no NVMe controller"));
    let inside = Box::new(Page([0; 4096]));
    let inside = inside.leak_address();
    assert!(controller.run(IDENTIFY, inside), "the controller does not complete a command");
    // SAFETY: the page is never freed, and the controller has written to it.
    let vendor =
        unsafe { core::ptr::with_exposed_provenance::<u16>(inside as usize).read_volatile() };
    println!("{}", Fact::from(StrayDmaFact::Inside { vendor }));
    controller.run(SET_TIMESTAMP, outside);
    controller.run(IDENTIFY, outside);
    let completes = controller.run(IDENTIFY, inside);
    println!("{}", Fact::from(StrayDmaFact::AfterOutside { completes }));
    power::system_off()
}

/// Returns the address on the command line.
fn address(around: &Started) -> Option<u64> {
    u64::from_str_radix(around.command_line().strip_prefix("0x")?, 16).ok()
}

/// Returns the region with the controller's registers.
fn bar(around: &Started) -> Option<Bar> {
    let description = gic_firmware::devicetree::parse(around.devicetree).ok()?;
    let functions = pci::enumerate(&description, description.hosts.first()?);
    let function = functions.iter().find(|function| function.is(VENDOR, DEVICE))?;
    Some(function.bar(0))
}

#[repr(C, align(4096))]
struct Page([u8; 4096]);

impl Page {
    /// Returns the page's address. The page belongs to the controller from now on and is never
    /// freed.
    fn leak_address(self: Box<Self>) -> u64 {
        Box::into_raw(self).expose_provenance() as u64
    }
}

/// An NVMe controller with its admin queues.
struct Controller {
    bar: Bar,
    submissions: u64,
    completions: u64,
    tail: usize,
}

impl Controller {
    fn start(bar: Bar) -> Self {
        let page = || Box::new(Page([0; 4096])).leak_address();
        let (submissions, completions) = (page(), page());
        bar.write32(CC, 0);
        wait("stop", || bar.read32(CSTS) & 1 == 0);
        let last = DEPTH as u32 - 1;
        bar.write32(AQA, last << 16 | last);
        bar.write64(ASQ, submissions);
        bar.write64(ACQ, completions);
        bar.write32(CC, CC_ENABLED);
        wait("start", || bar.read32(CSTS) & 1 == 1);
        Self { bar, submissions, completions, tail: 0 }
    }

    /// Submits a command. Returns `true` if the command completes; it does not complete if the
    /// controller can't access memory. Callers must not fill the queue.
    fn run(&mut self, (opcode, more): (u32, u32), data: u64) -> bool {
        let command = self.submissions as usize + 64 * self.tail;
        let command = core::ptr::with_exposed_provenance_mut::<u32>(command);
        let words = [(0, opcode), (6, data as u32), (7, (data >> 32) as u32), (10, more)];
        for (index, word) in words {
            // SAFETY: the address is in the queue's page, which is never freed.
            unsafe { command.add(index).write_volatile(word) };
        }
        cpu::publish_stores();
        let status = self.completions as usize + 16 * self.tail + 14;
        let status = core::ptr::with_exposed_provenance::<u16>(status);
        self.tail += 1;
        self.bar.write32(DOORBELL, self.tail as u32);
        // SAFETY: as above.
        cpu::wait_until(500, || unsafe { status.read_volatile() } & 1 == 1)
    }
}

fn wait(what: &str, done: impl FnMut() -> bool) {
    assert!(cpu::wait_until(2000, done), "the controller does not {what}");
}
