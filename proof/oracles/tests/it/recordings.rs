//! Replays what another project's GICv3 was told, and compares its answers with the model's: those
//! of its Direct LPIs, and those of its message-based SPIs. The files `data/gem5-*.record` hold the
//! recordings, and state their origin.
//!
//! The register offsets in this test are typed from IHI 0069 §12.11, not taken from `gic-arch`.

use doorbell_test_support::guest::{Machine, RAM};
use vgic::{AccessWidth, GuestMemory, VgicConfig};

const DIRECT_LPIS: &str = include_str!("../../data/gem5-direct-lpi.record");
const MESSAGE_BASED_SPIS: &str = include_str!("../../data/gem5-message-based-spi.record");

const GICR_CTLR: u64 = 0x0000;
const GICR_SETLPIR: u64 = 0x0040;
const GICR_CLRLPIR: u64 = 0x0048;
const GICR_INVLPIR: u64 = 0x00A0;
const GICR_SYNCR: u64 = 0x00C0;
const ENABLE_LPIS: u64 = 1;
const FIRST_LPI: u64 = 8192;
const SPURIOUS: u64 = 1023;

/// A machine under a script.
struct Scripted {
    machine: Machine,
    /// The interrupt that each CPU has acknowledged and not ended.
    acknowledged: Vec<u64>,
}

impl Scripted {
    /// Creates the machine of a script that starts with these operands. The third operand is the
    /// number of SPIs; without it, the script is for Direct LPIs, which have tables but are not
    /// enabled.
    fn new(operands: &[u64]) -> Self {
        let config = VgicConfig::new(u16::try_from(operands[1]).unwrap());
        let machine = match operands.get(2) {
            Some(spis) => {
                let config = config.with_spis(u32::try_from(*spis).unwrap());
                Machine::running(config.with_message_based_spis(true))
            }
            None => Machine::running(config.with_direct_lpi(true).with_lpi_id_bits(Some(16))),
        };
        let cpus = 0..machine.vcpus.len();
        let direct = cpus.clone().filter(|_| operands.len() == 2);
        for (cpu, pending) in direct.zip((RAM + 0x10_0000..).step_by(0x1_0000)) {
            machine.provide_lpi_tables(cpu, 16, RAM, pending);
        }
        Self { machine, acknowledged: vec![SPURIOUS; cpus.len()] }
    }

    fn write(&self, cpu: usize, offset: u64, width: AccessWidth, value: u64) {
        self.machine.write(self.machine.frame(cpu) + offset, width, value);
    }

    /// Writes an LPI's configuration, and waits until each redistributor has read it.
    fn configure(&self, lpi: u64, byte: u64) {
        let byte = u8::try_from(byte).unwrap();
        self.machine.ram.write(RAM + lpi - FIRST_LPI, &[byte]).unwrap();
        for cpu in 0..self.acknowledged.len() {
            self.write(cpu, GICR_INVLPIR, AccessWidth::Double, lpi);
            let busy = self.machine.frame(cpu) + GICR_SYNCR;
            while self.machine.read(busy, AccessWidth::Word) & 1 == 1 {}
        }
    }

    /// Acknowledges the interrupt with the highest priority.
    fn acknowledge(&mut self, cpu: usize) -> u64 {
        self.acknowledged[cpu] = self.machine.acknowledge(cpu);
        self.acknowledged[cpu]
    }

    /// Ends the interrupt that the CPU has acknowledged, if any.
    fn end(&mut self, cpu: usize) {
        let intid = std::mem::replace(&mut self.acknowledged[cpu], SPURIOUS);
        if intid != SPURIOUS {
            self.machine.end(cpu, intid);
        }
    }

    /// Acknowledges and ends the interrupt with the highest priority.
    fn take(&mut self, cpu: usize) -> u64 {
        let intid = self.acknowledge(cpu);
        self.end(cpu);
        intid
    }

    fn drain(&mut self, cpu: usize) -> Vec<u64> {
        std::iter::from_fn(|| Some(self.take(cpu)).filter(|intid| *intid != SPURIOUS)).collect()
    }

    /// Executes an operation, and returns the model's answers.
    fn run(&mut self, name: &str, a: u64, b: u64) -> Vec<u64> {
        let cpu = usize::try_from(a).unwrap();
        let width = match name.as_bytes().last() {
            Some(b'2') => AccessWidth::Half,
            Some(b'4') => AccessWidth::Word,
            _ => AccessWidth::Double,
        };
        let gicd = self.machine.gic.config().distributor;
        match name {
            "cfg" => self.configure(a, b),
            "on" => self.write(cpu, GICR_CTLR, AccessWidth::Word, ENABLE_LPIS),
            "set4" | "set8" => self.write(cpu, GICR_SETLPIR, width, b),
            "clr4" | "clr8" => self.write(cpu, GICR_CLRLPIR, width, b),
            "write2" | "write4" | "write8" => self.machine.write(gicd + a, width, b),
            "read4" => return vec![self.machine.read(gicd + a, width)],
            "ack" => return vec![self.acknowledge(cpu)],
            "end" => self.end(cpu),
            "take" => return vec![self.take(cpu)],
            "drain" => return self.drain(cpu),
            other => panic!("the record has an operation {other}"),
        }
        Vec::new()
    }
}

fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace().map(|word| u64::from_str_radix(word, 16).unwrap()).collect()
}

/// Compares the model's answers with those of a record. Returns the numbers of scripts and answers.
fn compare(record: &str) -> Result<(usize, usize), String> {
    let (mut machine, mut script, mut scripts, mut compared) = (None, "", 0, 0);
    for line in record.lines().filter(|line| !line.starts_with('#')) {
        let (operation, answers) = line.split_once(" =").unwrap_or((line, ""));
        let (name, operands) = operation.split_once(' ').unwrap();
        let operands = numbers(operands);
        let second = operands.get(1).copied().unwrap_or_default();
        if name == "script" {
            (machine, script) = (Some(Scripted::new(&operands)), line);
            scripts += 1;
            continue;
        }
        let answers = numbers(answers);
        let taken = machine.as_mut().unwrap().run(name, operands[0], second);
        if taken != answers {
            return Err(format!("{script}: {line}: the model takes {taken:x?}"));
        }
        compared += taken.len();
    }
    Ok((scripts, compared))
}

/// Checks that the model answers all scripts of a record as gem5 did.
fn check(record: &str, scripts: usize, at_least: usize) {
    let answers = record.lines().filter(|line| !line.starts_with('#'));
    let answers = answers.filter_map(|line| line.split_once(" =")).map(|(_, answers)| answers);
    let answers = answers.map(|answers| numbers(answers).len()).sum();
    assert!(answers >= at_least, "the record has {answers} answers");
    assert_eq!(compare(record), Ok((scripts, answers)));
}

#[test]
fn the_model_acknowledges_the_same_direct_lpis_as_gem5() {
    check(DIRECT_LPIS, 10, 300);
}

#[test]
fn the_model_handles_message_based_spis_as_gem5_does() {
    check(MESSAGE_BASED_SPIS, 4, 180);
}

#[test]
fn a_changed_answer_in_a_recording_is_detected() {
    for record in [DIRECT_LPIS, MESSAGE_BASED_SPIS] {
        let at = record.find("= 2").unwrap();
        let changed = [&record[..at], "= 1", &record[at + 3..]].concat();
        assert!(compare(&changed).is_err_and(|error| error.contains("= 1")));
    }
}
