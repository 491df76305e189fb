//! Replays what another project's GICv3 with Direct LPIs was told, and compares its answers with
//! the model's. The file `data/gem5-direct-lpi.record` holds the recording, and states its origin.
//!
//! The register offsets in this test are typed from IHI 0069 §12.11, not taken from `gic-arch`.

use doorbell_test_support::guest::{Machine, RAM};
use vgic::{AccessWidth, GuestMemory, VgicConfig};

const RECORD: &str = include_str!("../../data/gem5-direct-lpi.record");

const GICR_CTLR: u64 = 0x0000;
const GICR_SETLPIR: u64 = 0x0040;
const GICR_CLRLPIR: u64 = 0x0048;
const GICR_PROPBASER: u64 = 0x0070;
const GICR_PENDBASER: u64 = 0x0078;
const GICR_INVLPIR: u64 = 0x00A0;
const GICR_SYNCR: u64 = 0x00C0;
const ENABLE_LPIS: u64 = 1;
/// `GICR_PROPBASER.IDbits`, minus one.
const ID_BITS: u64 = 15;
const FIRST_LPI: u64 = 8192;
const SPURIOUS: u64 = 1023;

/// Counts of compared scripts and answers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Compared {
    scripts: usize,
    answers: usize,
}

/// A machine under a script.
struct Replay {
    machine: Machine,
    cpus: usize,
}

impl Replay {
    /// Creates a machine whose LPIs have tables but are not enabled.
    fn new(cpus: u64) -> Self {
        let config = VgicConfig::new(u16::try_from(cpus).unwrap());
        let machine = Machine::running(config.with_direct_lpi(true).with_lpi_id_bits(Some(16)));
        let replay = Self { machine, cpus: usize::try_from(cpus).unwrap() };
        for (cpu, pending) in (0..replay.cpus).zip((RAM + 0x10_0000..).step_by(0x1_0000)) {
            replay.write(cpu, GICR_PROPBASER, AccessWidth::Double, RAM | ID_BITS);
            replay.write(cpu, GICR_PENDBASER, AccessWidth::Double, pending);
        }
        replay
    }

    fn write(&self, cpu: usize, offset: u64, width: AccessWidth, value: u64) {
        self.machine.write(self.machine.frame(cpu) + offset, width, value);
    }

    /// Writes an LPI's configuration, and waits until each redistributor has read it.
    fn configure(&self, lpi: u64, byte: u64) {
        let byte = u8::try_from(byte).unwrap();
        self.machine.ram.write(RAM + lpi - FIRST_LPI, &[byte]).unwrap();
        for cpu in 0..self.cpus {
            self.write(cpu, GICR_INVLPIR, AccessWidth::Double, lpi);
            let busy = self.machine.frame(cpu) + GICR_SYNCR;
            while self.machine.read(busy, AccessWidth::Word) & 1 == 1 {}
        }
    }

    /// Takes the interrupt with the highest priority.
    fn take(&mut self, cpu: usize) -> u64 {
        let intid = self.machine.acknowledge(cpu);
        if intid != SPURIOUS {
            self.machine.end(cpu, intid);
        }
        intid
    }

    fn drain(&mut self, cpu: usize) -> Vec<u64> {
        std::iter::from_fn(|| Some(self.take(cpu)).filter(|intid| *intid != SPURIOUS)).collect()
    }

    /// Executes an operation, and returns the model's answers.
    fn run(&mut self, name: &str, a: u64, b: u64) -> Vec<u64> {
        let cpu = usize::try_from(a).unwrap();
        let width = if name.ends_with('4') { AccessWidth::Word } else { AccessWidth::Double };
        match name {
            "cfg" => self.configure(a, b),
            "on" => self.write(cpu, GICR_CTLR, AccessWidth::Word, ENABLE_LPIS),
            "set4" | "set8" => self.write(cpu, GICR_SETLPIR, width, b),
            "clr4" | "clr8" => self.write(cpu, GICR_CLRLPIR, width, b),
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

/// Compares the model's answers with those of a record.
fn compare(record: &str) -> Result<Compared, String> {
    let (mut replay, mut script, mut compared) = (None, "", Compared::default());
    for line in record.lines().filter(|line| !line.starts_with('#')) {
        let (operation, answers) = line.split_once(" =").unwrap_or((line, ""));
        let (name, operands) = operation.split_once(' ').unwrap();
        let operands = numbers(operands);
        let second = operands.get(1).copied().unwrap_or_default();
        if name == "script" {
            (replay, script) = (Some(Replay::new(second)), line);
            compared.scripts += 1;
            continue;
        }
        let answers = numbers(answers);
        let taken = replay.as_mut().unwrap().run(name, operands[0], second);
        if taken != answers {
            return Err(format!("{script}: {line}: the model takes {taken:x?}"));
        }
        compared.answers += taken.len();
    }
    Ok(compared)
}

#[test]
fn the_model_takes_what_gem5_takes() {
    let answers = RECORD.lines().filter(|line| !line.starts_with('#'));
    let answers = answers.filter_map(|line| line.split_once(" =")).map(|(_, answers)| answers);
    let answers = answers.map(|answers| numbers(answers).len()).sum();
    assert!(answers > 2000, "the record has {answers} answers");
    assert_eq!(compare(RECORD), Ok(Compared { scripts: 100, answers }));
}

#[test]
fn another_answer_is_found() {
    let at = RECORD.find("= 2").unwrap();
    let changed = [&RECORD[..at], "= 1", &RECORD[at + 3..]].concat();
    assert!(compare(&changed).is_err_and(|error| error.contains("= 1")));
}
