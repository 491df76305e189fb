//! The guest's PL011. A driver that only prints needs only two of the PL011's registers (DDI 0183,
//! 3.3). The guest's output is copied to the VMM's output line by line.
//!
//! After each fact in which the guest reports an operation's cost, the VMM adds a fact with the
//! number of exits that KVM has counted since the guest's previous line. The number includes the
//! two or three exits that printing the line's first character causes.

use crate::failure::Failure;
use doorbell_facts::{Fact, MicrobenchFact, MonitorFact};
use std::fs;
use std::mem::take;

const DATA: u64 = 0x00;
const FLAGS: u64 = 0x18;
/// Flags for an empty receive FIFO, and an empty transmit FIFO.
const EMPTY: u8 = 1 << 4 | 1 << 7;
/// File that holds the exit count over all vCPUs of all machines (debugfs).
const EXITS: &str = "/sys/kernel/debug/kvm/exits";

/// The UART, and the line that the guest is printing.
#[derive(Debug, Default)]
pub(crate) struct Console {
    line: String,
    /// Exit count before this line, and exit count after the previous line.
    before: u64,
    behind: u64,
}

impl Console {
    pub(crate) fn read(offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let (FLAGS, Some(flags)) = (offset, data.first_mut()) {
            *flags = EMPTY;
        }
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Failure> {
        match (offset, data) {
            (DATA, [character, ..]) => self.print(char::from(*character)),
            _ => Ok(()),
        }
    }

    fn print(&mut self, character: char) -> Result<(), Failure> {
        if self.line.is_empty() {
            self.before = exits()?;
        }
        self.line.push(character);
        if character == '\n' {
            self.end()?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        let line = take(&mut self.line);
        print!("{line}");
        if let Some(Fact::Microbench(MicrobenchFact::Cost { operation, .. })) = Fact::parse(&line) {
            let exits = self.before - self.behind;
            println!("{}", Fact::from(MonitorFact::Exits { operation, exits }));
        }
        self.behind = exits()?;
        Ok(())
    }
}

fn exits() -> Result<u64, Failure> {
    let text = fs::read_to_string(EXITS).map_err(|error| format!("{EXITS}: {error}"))?;
    Ok(text.trim().parse()?)
}
