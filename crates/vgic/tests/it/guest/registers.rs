//! Checks every register in the frames and the CPU interface, by its number in the manual (IHI 0069
//! §12): its value after reset, and after writing all ones, in both security views.

use doorbell_test_support::guest::Machine;
use gic_arch::IntId;
use gic_arch::icc::SysRegEncoding;
use vgic::SecurityView::{NonSecure, Single};
use vgic::its::ItsConfig;
use vgic::{AccessWidth, SecurityView, VgicConfig};

const VIEWS: [SecurityView; 2] = [Single, NonSecure];
/// Interrupts that belong to the Secure side in the Non-secure view, one of each kind.
const SECURE: [u32; 5] = [15, 31, 40, 1060, 4100];
const DISTRIBUTOR: u64 = 0x0800_0000;
const REDISTRIBUTOR: u64 = 0x080a_0000;
const ITS: u64 = 0x0808_0000;

/// Creates a machine with every option, and with frames at [`DISTRIBUTOR`], [`REDISTRIBUTOR`] and
/// [`ITS`].
fn machine(security: SecurityView) -> Machine {
    let secure = if security == Single { &[][..] } else { &SECURE[..] };
    Machine::new(
        VgicConfig::new(1)
            .with_spis(988)
            .with_extended_spis(1024)
            .with_extended_ppis(64)
            .with_lpi_id_bits(Some(16))
            .with_its(vec![ItsConfig::new(ITS)])
            .with_security(security)
            .with_secure_interrupts(secure.iter().copied().map(IntId::new).collect())
            .with_redistributor_invalidation(true)
            .with_one_of_n(true)
            .with_message_based_spis(true),
    )
}

/// Function that returns the value of a word of a register or register array, in a security view.
type Words = Box<dyn Fn(u64, SecurityView) -> u64>;

/// A register, or an array of registers.
struct RegisterArray {
    name: &'static str,
    offset: u64,
    words: u64,
    width: AccessWidth,
    reset: Words,
    written: Words,
}

fn array(
    name: &'static str,
    offset: u64,
    words: u64,
    reset: impl Fn(u64, SecurityView) -> u64 + 'static,
    written: impl Fn(u64, SecurityView) -> u64 + 'static,
) -> RegisterArray {
    let (reset, written) = (Box::new(reset), Box::new(written));
    RegisterArray { name, offset, words, width: AccessWidth::Word, reset, written }
}

fn double(registers: RegisterArray) -> RegisterArray {
    RegisterArray { width: AccessWidth::Double, ..registers }
}

/// Creates a register from its values in the Single and the Non-secure view.
fn one(name: &'static str, offset: u64, reset: [u64; 2], written: [u64; 2]) -> RegisterArray {
    array(
        name,
        offset,
        1,
        move |_, view| reset[view as usize],
        move |_, view| written[view as usize],
    )
}

fn constant(name: &'static str, offset: u64, value: u64) -> RegisterArray {
    one(name, offset, [value; 2], [value; 2])
}

fn zero(name: &'static str, offset: u64, words: u64) -> RegisterArray {
    array(name, offset, words, |_, _| 0, |_, _| 0)
}

/// Builds a register word from fields that are `bits` bits wide. The field of each interrupt that
/// exists and is visible in the view has the value `field`; all other fields are zero.
fn fields(first: u64, bits: u64, word: u64, view: SecurityView, field: u64) -> u64 {
    let per_word = 32 / bits;
    let present = |intid: u64| {
        let intid = u32::try_from(intid).unwrap();
        !(1020..1024).contains(&intid) && (view == Single || !SECURE.contains(&intid))
    };
    let shown = (0..per_word).filter(|at| present(first + word * per_word + at));
    shown.fold(0, |value, at| value | field << (at * bits))
}

/// Register arrays with one field per interrupt, starting at INTID `first`: the offsets of
/// `IGROUPR` and so on. The fields of the first `skipped` interrupts of each array are in another
/// frame.
struct Arrays {
    first: u64,
    count: u64,
    skipped: u64,
    one_bit: [u64; 7],
    priority: u64,
    trigger: u64,
}

fn per_interrupt(at: &Arrays) -> Vec<RegisterArray> {
    let Arrays { first, count, skipped, one_bit, priority, trigger } = *at;
    let bit =
        move |word, view| if word < skipped / 32 { 0 } else { fields(first, 1, word, view, 1) };
    let names =
        ["IGROUPR", "ISENABLER", "ICENABLER", "ISPENDR", "ICPENDR", "ISACTIVER", "ICACTIVER"];
    let mut registers = Vec::new();
    for (name, offset) in names.into_iter().zip(one_bit) {
        let written = move |word, view| match (name, view) {
            ("IGROUPR", NonSecure) | ("ICENABLER" | "ICPENDR" | "ICACTIVER", _) => 0,
            _ => bit(word, view),
        };
        registers.push(array(name, offset, count / 32, |_, _| 0, written));
    }
    let urgency = move |word, view| {
        let all = if view == Single { 0xf8 } else { 0xf0 };
        if word < skipped / 4 { 0 } else { fields(first, 8, word, view, all) }
    };
    registers.push(array("IPRIORITYR", priority, count / 4, |_, _| 0, urgency));
    let edges =
        move |word, view| if word < skipped / 16 { 0 } else { fields(first, 2, word, view, 2) };
    let fixed = move |word, view| {
        if first == 0 && skipped == 0 && word == 0 { edges(word, view) } else { 0 }
    };
    registers.push(array("ICFGR", trigger, count / 16, fixed, edges));
    registers
}

fn identification(part: u64) -> RegisterArray {
    let bytes = [0x44, 0, 0, 0, part, 0xb4, 0x3b, 0, 0x0d, 0xf0, 0x05, 0xb1];
    let value = move |word, _| bytes[usize::try_from(word).unwrap()];
    array("PIDR, CIDR", 0xffd0, 12, value, value)
}

fn distributor() -> Vec<RegisterArray> {
    let extended_route = |word, view: SecurityView| {
        if view == NonSecure && word + 4096 == 4100 { 0 } else { 0xff_80ff_ffff }
    };
    let spi_route = |word, view: SecurityView| {
        if view == NonSecure && word + 32 == 40 { 0 } else { 0xff_80ff_ffff }
    };
    let mut registers = vec![
        one("CTLR", 0x0000, [0x50, 0x10], [0xd3, 0x12]),
        one("TYPER", 0x0004, [0xfd7b_011f, 0xfd7b_051f], [0xfd7b_011f, 0xfd7b_051f]),
        constant("IIDR", 0x0008, 0x43b),
        zero("TYPER2", 0x000c, 1),
        zero("STATUSR", 0x0010, 1),
        zero("ITARGETSR", 0x0800, 256),
        zero("IGRPMODR", 0x0d00, 32),
        zero("NSACR", 0x0e00, 64),
        zero("CPENDSGIR", 0x0f10, 4),
        zero("SPENDSGIR", 0x0f20, 4),
        zero("INMIR", 0x0f80, 32),
        zero("IGRPMODRnE", 0x3400, 32),
        zero("NSACRnE", 0x3600, 64),
        double(zero("IROUTER0-31", 0x6000, 32)),
        double(array("IROUTER", 0x6100, 988, |_, _| 0, spi_route)),
        double(array("IROUTERnE", 0x8000, 1024, |_, _| 0, extended_route)),
        identification(0x92),
    ];
    registers.extend(per_interrupt(&Arrays {
        first: 0,
        count: 1024,
        skipped: 32,
        one_bit: [0x80, 0x100, 0x180, 0x200, 0x280, 0x300, 0x380],
        priority: 0x400,
        trigger: 0xc00,
    }));
    registers.extend(per_interrupt(&Arrays {
        first: 4096,
        count: 1024,
        skipped: 0,
        one_bit: [0x1000, 0x1200, 0x1400, 0x1600, 0x1800, 0x1a00, 0x1c00],
        priority: 0x2000,
        trigger: 0x3000,
    }));
    registers
}

fn redistributor() -> Vec<RegisterArray> {
    let sgi_base = |offset: u64| 0x1_0000 + offset;
    let mut registers = vec![
        one("CTLR", 0x0000, [0x6; 2], [0x0700_0007, 0x0200_0007]),
        constant("IIDR", 0x0004, 0x43b),
        double(constant("TYPER", 0x0008, 0x1000_0031)),
        zero("STATUSR", 0x0010, 1),
        one("WAKER", 0x0014, [0b110, 0], [0b110, 0]),
        zero("MPAMIDR", 0x0018, 1),
        zero("PARTIDR", 0x001c, 1),
        double(one("PROPBASER", 0x0070, [0; 2], [0x070f_ffff_ffff_ff9f; 2])),
        double(one("PENDBASER", 0x0078, [0; 2], [0x070f_ffff_ffff_0f80; 2])),
        zero("SYNCR", 0x00c0, 1),
        identification(0x93),
        zero("IGRPMODR", sgi_base(0x0d00), 3),
        zero("NSACR", sgi_base(0x0e00), 1),
        zero("INMIR", sgi_base(0x0f80), 3),
    ];
    // Each array has the fields of the SGIs and PPIs, followed by the fields of the extended PPIs.
    for (first, count, after) in [(0, 32, 0), (1056, 64, 1)] {
        let one_bit =
            [0x80, 0x100, 0x180, 0x200, 0x280, 0x300, 0x380].map(|at| sgi_base(at) + 4 * after);
        let (priority, trigger) = (sgi_base(0x400) + 32 * after, sgi_base(0xc00) + 8 * after);
        registers.extend(per_interrupt(&Arrays {
            first,
            count,
            skipped: 0,
            one_bit,
            priority,
            trigger,
        }));
    }
    registers
}

/// Returns the registers of an ITS with 64 KiB pages, a flat collection table, and no collections
/// held in hardware.
fn its() -> Vec<RegisterArray> {
    let both_views = |value: u64| [value; 2];
    vec![
        one("CTLR", 0x0000, both_views(0x8000_0000), both_views(1)),
        constant("IIDR", 0x0004, 0x43b),
        double(constant("TYPER", 0x0008, 0x1_ef71)),
        zero("MPAMIDR", 0x0010, 1),
        zero("PARTIDR", 0x0014, 1),
        zero("MPIDR", 0x0018, 1),
        zero("STATUSR", 0x0040, 1),
        double(zero("UMSIR", 0x0048, 1)),
        // Like in KVM: RES0 bits read as written, and the queue is aligned to 64 KiB.
        double(one("CBASER", 0x0080, both_views(0), both_views(0xffff_ffff_ffff_0fff))),
        double(zero("CWRITER", 0x0088, 1)),
        double(zero("CREADR", 0x0090, 1)),
        double(one(
            "BASER0",
            0x0100,
            both_views(0x0107_0000_0000_0200),
            both_views(0xf9e7_ffff_ffff_feff),
        )),
        double(one(
            "BASER1",
            0x0108,
            both_views(0x0407_0000_0000_0200),
            both_views(0xbce7_ffff_ffff_feff),
        )),
        double(zero("BASER2-7", 0x0110, 6)),
        identification(0x94),
    ]
}

fn check(base: u64, registers: &[RegisterArray]) {
    for view in VIEWS {
        for it in registers {
            let machine = machine(view);
            let address = |word| base + it.offset + u64::from(it.width.bytes()) * word;
            let what = |word| format!("{}, word {word} of {:#x}, {view:?}", it.name, it.offset);
            for word in 0..it.words {
                let read = machine.read(address(word), it.width);
                assert_eq!(read, (it.reset)(word, view), "after reset: {}", what(word));
            }
            for word in 0..it.words {
                machine.write(address(word), it.width, u64::MAX);
            }
            for word in 0..it.words {
                let (read, expected) =
                    (machine.read(address(word), it.width), (it.written)(word, view));
                assert_eq!(read, expected, "after all ones: {}", what(word));
            }
        }
    }
}

#[test]
fn distributor_registers_match_the_manual() {
    check(DISTRIBUTOR, &distributor());
}

#[test]
fn redistributor_registers_match_the_manual() {
    check(REDISTRIBUTOR, &redistributor());
}

#[test]
fn its_registers_match_the_manual() {
    check(ITS, &its());
}

/// Result of a system register access. `None` means that the access causes an exception.
type Answer = Option<u64>;

/// `CRn`, `CRm` and `op2` of a register with `op0` 3 and `op1` 0, followed by its values after
/// reset and after a write of all ones, in both views. A value is `None` if the register cannot be
/// read.
type SystemRegister = (&'static str, [u16; 3], [[Answer; 2]; 2], Access);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    ReadOnly,
    ReadWrite,
    WriteOnly,
}

/// Returns the values of a register that exists in both views.
const fn both(reset: u64, written: u64) -> [[Answer; 2]; 2] {
    [[Some(reset), Some(written)]; 2]
}

/// Returns the values of a Group 0 register.
const fn single(reset: u64, written: u64) -> [[Answer; 2]; 2] {
    [[Some(reset), Some(written)], [None, None]]
}

const ABSENT: [[Answer; 2]; 2] = [[None; 2]; 2];

/// System registers of a machine with five priority bits and extended INTID ranges.
const SYSTEM_REGISTERS: [SystemRegister; 27] = {
    use Access::{ReadOnly, ReadWrite, WriteOnly};
    [
        ("PMR", [4, 6, 0], [[Some(0), Some(0xf8)], [Some(0), Some(0xf0)]], ReadWrite),
        ("IAR0", [12, 8, 0], single(1023, 1023), ReadOnly),
        ("EOIR0", [12, 8, 1], ABSENT, WriteOnly),
        ("HPPIR0", [12, 8, 2], single(1023, 1023), ReadOnly),
        ("BPR0", [12, 8, 3], single(2, 7), ReadWrite),
        ("AP0R0", [12, 8, 4], single(0, 0xffff_ffff), ReadWrite),
        ("AP0R1", [12, 8, 5], ABSENT, ReadWrite),
        ("AP0R2", [12, 8, 6], ABSENT, ReadWrite),
        ("AP0R3", [12, 8, 7], ABSENT, ReadWrite),
        (
            "AP1R0",
            [12, 9, 0],
            [[Some(0), Some(0xffff_ffff)], [Some(0), Some(0xffff_0000)]],
            ReadWrite,
        ),
        ("AP1R1", [12, 9, 1], ABSENT, ReadWrite),
        ("AP1R2", [12, 9, 2], ABSENT, ReadWrite),
        ("AP1R3", [12, 9, 3], ABSENT, ReadWrite),
        ("NMIAR1", [12, 9, 5], ABSENT, ReadOnly),
        ("DIR", [12, 11, 1], ABSENT, WriteOnly),
        ("RPR", [12, 11, 3], both(0xff, 0xff), ReadOnly),
        ("SGI1R", [12, 11, 5], ABSENT, WriteOnly),
        ("ASGI1R", [12, 11, 6], ABSENT, WriteOnly),
        ("SGI0R", [12, 11, 7], ABSENT, WriteOnly),
        ("IAR1", [12, 12, 0], both(1023, 1023), ReadOnly),
        ("EOIR1", [12, 12, 1], ABSENT, WriteOnly),
        ("HPPIR1", [12, 12, 2], both(1023, 1023), ReadOnly),
        ("BPR1", [12, 12, 3], both(3, 7), ReadWrite),
        ("CTLR", [12, 12, 4], both(0xc_8400, 0xc_8403), ReadWrite),
        ("SRE", [12, 12, 5], both(7, 7), ReadWrite),
        ("IGRPEN0", [12, 12, 6], single(0, 1), ReadWrite),
        ("IGRPEN1", [12, 12, 7], both(0, 1), ReadWrite),
    ]
};

#[test]
fn cpu_interface_registers_match_the_manual() {
    for view in VIEWS {
        for (name, [crn, crm, op2], values, access) in SYSTEM_REGISTERS {
            let mut machine = machine(view);
            let vcpu = &mut machine.vcpus[0];
            let register = SysRegEncoding::new(3, 0, crn, crm, op2);
            let [reset, written] = values[view as usize];
            assert_eq!(vcpu.read_sysreg(register).ok(), reset, "{name} after reset, {view:?}");
            let group_zero = matches!(name, "EOIR0");
            let taken = match access {
                Access::ReadOnly => false,
                Access::ReadWrite => reset.is_some(),
                Access::WriteOnly => view == Single || !group_zero,
            };
            assert_eq!(
                vcpu.write_sysreg(register, u64::MAX).is_ok(),
                taken,
                "writing {name}, {view:?}"
            );
            assert_eq!(vcpu.read_sysreg(register).ok(), written, "{name} after all ones, {view:?}");
        }
    }
}

#[test]
fn distributor_accesses_of_permitted_widths_record_no_fault() {
    for view in VIEWS {
        let machine = machine(view);
        for it in distributor() {
            let narrowest = match it.name {
                "IPRIORITYR" | "ITARGETSR" | "CPENDSGIR" | "SPENDSGIR" => AccessWidth::Byte,
                _ => AccessWidth::Word,
            };
            let bytes = it.words * u64::from(it.width.bytes());
            for at in (0..bytes).step_by(narrowest.bytes() as usize).filter(|_| it.name != "INMIR")
            {
                machine.read(DISTRIBUTOR + it.offset + at, narrowest);
            }
        }
        for message in [0x40, 0x48, 0x50, 0x58] {
            machine.write(DISTRIBUTOR + message, AccessWidth::Half, 32);
        }
        assert_eq!(machine.gic.events().total(), 0, "{view:?}");
    }
}
