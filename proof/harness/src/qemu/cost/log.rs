//! Parses QEMU's log of instructions (`-d exec,nochain,int`, with one instruction per block) and
//! its traces of acknowledgments and EOIs at the CPU interface.

use std::fmt;
use std::ops::Range;

/// SPIs; a controller inside a host bridge signals its messages by one.
const SPIS: Range<u32> = 32..1020;
/// First INTID of LPIs, which are messages.
const FIRST_LPI: u32 = 8192;
const INSTRUCTION: u64 = 4;
/// Events of reads of IAR and writes of EOIR, at the physical and at the virtual CPU interface. A
/// hypervisor takes the exception, and its guest then reads from the virtual interface.
const ACKNOWLEDGMENTS: [&str; 2] = ["gicv3_icc_iar1_read ", "gicv3_icv_iar_read "];
const ENDS: [&str; 2] = ["gicv3_icc_eoir_write ", "gicv3_icv_eoir_write "];

/// Numbers of instructions in the phases of an interrupt, without the device's own handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstructionSplit {
    /// From the exception to the read of IAR.
    pub acknowledge: usize,
    /// From the read of IAR to the handler's first instruction.
    pub dispatch: usize,
    /// From the handler's return to the write of EOI.
    pub finish: usize,
    /// From the write of EOI to the interrupted code.
    pub leave: usize,
}

impl InstructionSplit {
    /// Returns the number of instructions from IAR to EOI.
    pub const fn core(self) -> usize {
        self.dispatch + self.finish
    }

    /// Returns the number of instructions from the exception to the return to interrupted code.
    pub const fn total(self) -> usize {
        self.acknowledge + self.core() + self.leave
    }

    const ALL: [fn(&Self) -> usize; 4] = [
        |spans| spans.acknowledge,
        |spans| spans.dispatch,
        |spans| spans.finish,
        |spans| spans.leave,
    ];
}

impl fmt::Display for InstructionSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledge, dispatch, finish, leave } = self;
        let core = self.core();
        write!(
            f,
            "{acknowledge} to IAR, {dispatch} to the handler, {finish} to EOI, {leave} to the \
             return; "
        )?;
        write!(f, "{core} from IAR to EOI")
    }
}

/// Events observed for the current interrupt.
#[derive(Clone, Copy, Debug, Default)]
struct Course {
    intid: u32,
    /// Positions in the log, counted in instructions.
    iar: usize,
    handler: Option<usize>,
    /// Return address of the handler; `back` is the position of the return itself.
    caller: u64,
    back: Option<usize>,
    eoi: Option<usize>,
}

/// Parses a log line by line.
#[derive(Debug)]
pub(super) struct LogReader {
    handler: u64,
    /// Number of instructions so far, and the address of the last instruction.
    count: usize,
    last: u64,
    exception: usize,
    course: Option<Course>,
    found: Vec<InstructionSplit>,
}

impl LogReader {
    /// Creates a reader for interrupts whose handler starts at `handler`.
    pub(super) fn new(handler: u64) -> Self {
        Self { handler, count: 0, last: 0, exception: 0, course: None, found: Vec::new() }
    }

    /// Processes one line.
    pub(super) fn line(&mut self, line: &str) {
        if line.starts_with("Trace ") {
            if let Some(address) = address(line) {
                self.instruction(address);
            }
        } else if line.starts_with("Taking exception 5 ") {
            self.exception = self.count;
        } else if line.starts_with("Exception return ") {
            self.returned();
        } else if ACKNOWLEDGMENTS.iter().any(|event| line.starts_with(event)) {
            self.acknowledged(value(line));
        } else if ENDS.iter().any(|event| line.starts_with(event)) {
            self.ended(value(line));
        }
    }

    fn instruction(&mut self, address: u64) {
        if let Some(course) = &mut self.course {
            if course.handler.is_none() && address == self.handler {
                course.handler = Some(self.count);
                course.caller = self.last + INSTRUCTION;
            } else if course.handler.is_some() && course.back.is_none() && address == course.caller
            {
                course.back = Some(self.count);
            }
        }
        self.count += 1;
        self.last = address;
    }

    /// Records an acknowledgment. The instruction that reads IAR has already been counted.
    fn acknowledged(&mut self, intid: Option<u32>) {
        if let Some(intid) = intid.filter(|intid| SPIS.contains(intid) || *intid >= FIRST_LPI) {
            self.course = Some(Course { intid, iar: self.count, ..Course::default() });
        }
    }

    fn ended(&mut self, intid: Option<u32>) {
        if let Some(course) = self.course.as_mut().filter(|course| Some(course.intid) == intid) {
            course.eoi = Some(self.count);
        }
    }

    fn returned(&mut self) {
        let Some(course) = self.course.filter(|course| course.eoi.is_some()) else { return };
        self.course = None;
        if let (Some(handler), Some(back), Some(eoi)) = (course.handler, course.back, course.eoi) {
            self.found.push(InstructionSplit {
                acknowledge: course.iar - self.exception,
                dispatch: handler - course.iar,
                finish: eoi - back,
                leave: self.count - eoi,
            });
        }
    }

    /// Returns the number of interrupts that were observed from their exception to their return.
    pub(super) fn seen(&self) -> usize {
        self.found.len()
    }

    /// Returns the median of each span.
    pub(super) fn median(&self) -> Option<InstructionSplit> {
        let [acknowledge, dispatch, finish, leave] = InstructionSplit::ALL.map(|span| {
            let mut all: Vec<_> = self.found.iter().map(span).collect();
            all.sort_unstable();
            all.get(all.len() / 2).copied()
        });
        Some(InstructionSplit {
            acknowledge: acknowledge?,
            dispatch: dispatch?,
            finish: finish?,
            leave: leave?,
        })
    }
}

/// Parses the address in `Trace 0: 0x7f… [CS_BASE/ADDRESS/FLAGS/CFLAGS]`.
fn address(line: &str) -> Option<u64> {
    u64::from_str_radix(line.split('/').nth(1)?, 16).ok()
}

/// Parses the number at the end of the line.
fn value(line: &str) -> Option<u32> {
    u32::from_str_radix(line.trim_end().rsplit_once(" 0x")?.1, 16).ok()
}
