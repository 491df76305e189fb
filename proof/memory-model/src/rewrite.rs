//! Writes data-processing instructions in the subset of AArch64 that herd7 reads.

use anyhow::{Result, bail};

use crate::assembly::{Instruction, Operand};

/// Returns the mnemonics and operands of one or more instructions with the same effect.
pub(crate) fn for_herd(code: &Instruction) -> Result<Vec<(String, String)>> {
    use Operand::{Number, Register as Reg};
    let line = |name: &str, operands: String| (name.to_owned(), operands);
    let ones = |count: u64| u64::MAX >> (64 - count);
    let end = match (code.name.as_str(), &code.operands[..]) {
        ("bfi" | "ubfiz", [_, _, Number(at), Number(count)]) => at + count,
        ("lsl", [_, _, Number(at)]) => at + 1,
        _ => 0,
    };
    if end > 32 {
        bail!("herd7 shifts to the left in 32 bits");
    }
    let lines = match (code.name.as_str(), &code.operands[..]) {
        ("ubfx", [Reg(to), Reg(from), Number(at), Number(count)]) => {
            vec![line("UBFM", format!("{to},{from},#{at},#{}", at + count - 1))]
        }
        ("ubfiz", [Reg(to), Reg(from), Number(at), Number(count)]) => {
            vec![
                line("AND", format!("{to},{from},{}", immediate(ones(*count)))),
                line("LSL", format!("{to},{to},#{at}")),
            ]
        }
        ("bfi" | "bfxil", [Reg(to), Reg(from), Number(at), Number(count)]) => {
            let temporary = if to.wide { "X{t}" } else { "W{t}" };
            let bits = immediate(ones(*count));
            let (shift, field) = if code.name == "bfi" {
                // herd7 evaluates bitfield moves to the left as if they were moves to the right.
                let masked = line("AND", format!("{temporary},{from},{bits}"));
                (*at, [masked, line("LSL", format!("{temporary},{temporary},#{at}"))])
            } else {
                let moved = line("LSR", format!("{temporary},{from},#{at}"));
                (0, [moved, line("AND", format!("{temporary},{temporary},{bits}"))])
            };
            let keep = !(ones(*count) << shift);
            let keep = if to.wide { keep } else { keep & 0xffff_ffff };
            let mut lines = field.to_vec();
            lines.push(line("AND", format!("{to},{to},{}", immediate(keep))));
            lines.push(line("ORR", format!("{to},{to},{temporary}")));
            lines
        }
        ("mvn", [to @ Reg(_), from @ Reg(_), Operand::Shift(kind, amount)]) => vec![
            line(
                &kind.to_uppercase(),
                plain(&[to.clone(), from.clone(), Number((*amount).into())])?,
            ),
            line("MVN", plain(&[to.clone(), to.clone()])?),
        ],
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assembly::Assembly;

    fn rewritten(line: &str) -> Result<Vec<String>> {
        let assembly = Assembly::parse(line)?;
        let lines = for_herd(&assembly.code[0])?;
        Ok(lines.into_iter().map(|(name, operands)| format!("{name} {operands}")).collect())
    }

    #[test]
    fn bfi_is_rewritten_to_shifts_and_masks() {
        let lines = rewritten("bfi x8, x11, #16, #8").unwrap();
        assert_eq!(
            lines,
            ["AND X{t},X11,#255", "LSL X{t},X{t},#16", "AND X8,X8,#-16711681", "ORR X8,X8,X{t}"]
        );
        assert!(rewritten("bfi x8, x11, #32, #32").is_err());
        assert!(rewritten("lsl x8, x11, #32").is_err());
    }

    #[test]
    fn a_shifted_mvn_is_rewritten_to_two_instructions() {
        assert_eq!(rewritten("mvn w10, w9, lsl #2").unwrap(), ["LSL W10,W9,#2", "MVN W10,W10"]);
    }
}
