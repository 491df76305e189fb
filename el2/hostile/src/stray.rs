//! A guest whose PCI device, QEMU's NVMe controller, reads and writes memory outside the guest. The
//! suite checks that memory afterwards.

use crate::device;
use crate::machine::{self, Layout};
use doorbell_facts::{Fact, StrayDmaFact};
use image_rt::{cpu, power, println};

/// Device and vendor ID of the controller.
const NVME: u32 = 0x0010_1b36;
/// Registers and their fields (NVM Express Base Specification, 3.1).
const CC: u64 = 0x14;
const CSTS: u64 = 0x1c;
const AQA: u64 = 0x24;
const ASQ: u64 = 0x28;
const ACQ: u64 = 0x30;
const DOORBELL: u64 = 0x1000;
/// The controller is enabled, with queue entries of 64 and 16 bytes.
const CC_ENABLED: u64 = 1 | 6 << 16 | 4 << 20;
const DEPTH: u64 = 16;

/// Opcodes of commands that the controller itself executes, with their dword 10 (5.17, 5.27).
const IDENTIFY: (u64, u64) = (0x06, 1);
const SET_TIMESTAMP: (u64, u64) = (0x09, 0x0e);

/// Makes the controller access memory at `outside`.
pub(crate) fn run(outside: u64) -> ! {
    let mut controller = Controller::start();
    let inside = controller.memory.configuration;
    assert!(controller.run(IDENTIFY, inside), "the controller does not complete a command");
    let vendor = machine::read(inside, 2) as u16;
    println!("{}", Fact::from(StrayDmaFact::Inside { vendor }));
    controller.run(SET_TIMESTAMP, outside);
    controller.run(IDENTIFY, outside);
    let completes = controller.run(IDENTIFY, inside);
    println!("{}", Fact::from(StrayDmaFact::AfterOutside { completes }));
    power::system_off()
}

/// An NVMe controller, whose admin queues replace those of an ITS and its devices.
struct Controller {
    registers: u64,
    memory: Layout,
    tail: u64,
}

impl Controller {
    fn start() -> Self {
        let (registers, memory) = (device::enable(device::find(NVME)), Layout::apart());
        let set_enabled = |value, is_ready: u64, what: &str| {
            machine::write(registers + CC, 4, value);
            let is_done = || machine::read(registers + CSTS, 4) & 1 == is_ready;
            assert!(cpu::wait_until(2000, is_done), "the controller does not {what}");
        };
        set_enabled(0, 0, "stop");
        machine::fill(memory.devices, 0x1000, 0);
        machine::write(registers + AQA, 4, (DEPTH - 1) << 16 | (DEPTH - 1));
        machine::write(registers + ASQ, 8, memory.queue);
        machine::write(registers + ACQ, 8, memory.devices);
        set_enabled(CC_ENABLED, 1, "start");
        Self { registers, memory, tail: 0 }
    }

    /// Submits a command. Returns `true` if the command completes; it does not complete if the
    /// controller can't access memory. Callers must not fill the queue.
    fn run(&mut self, (opcode, more): (u64, u64), data: u64) -> bool {
        let command = self.memory.queue + 64 * self.tail;
        machine::store(command, [opcode, 0, 0, data]);
        machine::store(command + 32, [0, more, 0, 0]);
        cpu::publish_stores();
        let status = self.memory.devices + 16 * self.tail + 14;
        self.tail += 1;
        machine::write(self.registers + DOORBELL, 4, self.tail);
        cpu::wait_until(500, || machine::read(status, 2) & 1 == 1)
    }
}
