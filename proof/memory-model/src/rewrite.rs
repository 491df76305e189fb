//! Writes data-processing instructions in the subset of AArch64 that herd7 reads.

use anyhow::{Result, bail};

use crate::assembly::{Instruction, Operand, Register};

/// Returns the mnemonics and operands of one or more instructions with the same effect.
pub(crate) fn for_herd(code: &Instruction) -> Result<Vec<(String, String)>> {
    use Operand::{Number, Register as Reg};
    let line = |name: &str, operands: String| (name.to_owned(), operands);
    let size = |register: &Register| if register.wide { 64 } else { 32 };
    let lines = match (code.name.as_str(), &code.operands[..]) {
        ("ubfx", [Reg(to), Reg(from), Number(at), Number(count)]) => {
            vec![line("UBFM", format!("{to},{from},#{at},#{}", at + count - 1))]
        }
        ("ubfiz", [Reg(to), Reg(from), Number(at), Number(count)]) => {
            vec![line("UBFM", format!("{to},{from},#{},#{}", size(to) - at, count - 1))]
        }
        ("bfi" | "bfxil", [Reg(to), Reg(from), Number(at), Number(count)]) => {
            let inserts = code.name == "bfi";
            let (first, last, shift) = if inserts {
                ((size(to) - at) % size(to), count - 1, *at)
            } else {
                (*at, at + count - 1, 0)
            };
            let keep = !((u64::MAX >> (64 - count)) << shift);
            let keep = if to.wide { keep } else { keep & 0xffff_ffff };
            let temporary = if to.wide { "X{t}" } else { "W{t}" };
            vec![
                line("UBFM", format!("{temporary},{from},#{first},#{last}")),
                line("AND", format!("{to},{to},{}", immediate(keep))),
                line("ORR", format!("{to},{to},{temporary}")),
            ]
        }
        ("uxtb", [Reg(to), Reg(from)]) => vec![line("AND", format!("{to},{from},#255"))],
        ("uxth", [Reg(to), Reg(from)]) => vec![line("AND", format!("{to},{from},#65535"))],
        ("cmn", [Reg(one), Number(number)]) => vec![line("CMP", format!("{one},#-{number}"))],
        ("clz" | "udiv" | "cmn" | "sxtw" | "ror" | "umull" | "umaddl" | "umulh" | "movk", _) => {
            bail!("herd7 has no `{}`", code.name)
        }
        (name, operands) => vec![line(&name.to_uppercase(), plain(operands)?)],
    };
    Ok(lines)
}

fn plain(operands: &[Operand]) -> Result<String> {
    let words = operands.iter().map(|operand| match operand {
        Operand::Register(register) => Ok(register.to_string()),
        Operand::Number(number) => Ok(immediate(*number)),
        Operand::Shift(kind, 0) => Ok(kind.to_uppercase()),
        Operand::Shift(kind, amount) => Ok(format!("{} #{amount}", kind.to_uppercase())),
        Operand::Memory(..) | Operand::Name(_) => bail!("{operand:?} is not a value"),
    });
    Ok(words.collect::<Result<Vec<_>>>()?.join(","))
}

fn immediate(number: u64) -> String {
    let signed = number.cast_signed();
    // herd7 reads immediates of 63 bits.
    if signed.unsigned_abs() < 1 << 40 { format!("#{signed}") } else { format!("{{#{number}}}") }
}
