//! Checks the calling contexts in documentation. A calling context must have one of the four forms
//! defined in `msi-types`.

use std::path::Path;

const FORMS: [&str; 4] = [
    "any.",
    "hard IRQ.",
    "task; may sleep.",
    "task; interrupts may be masked; must not sleep or allocate.",
];

/// Phrases that state a context in running text.
const LOOSE: [&str; 5] = ["Task.", "Any context", "Any thread", "Hard IRQ.", "Hard IRQ:"];

/// Returns the doc comments that state a context in any other form.
pub(crate) fn check(file: &Path, text: &str) -> Vec<(usize, String)> {
    let lines = (1..).zip(text.lines());
    let loose = lines.filter(|(_, line)| file.starts_with("crates") && is_loose(line));
    loose.map(|(line, _)| (line, "a context in none of the four forms".into())).collect()
}

fn is_loose(line: &str) -> bool {
    let text = line.trim_start();
    let Some(text) = text.strip_prefix("/// ").or_else(|| text.strip_prefix("//! ")) else {
        return false;
    };
    match text.strip_prefix("Context: ") {
        Some(form) => !FORMS.contains(&form),
        None => {
            LOOSE.iter().any(|word| text.starts_with(word) || text.contains(&format!(". {word}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_four_forms_of_a_context_pass() {
        for form in FORMS {
            assert!(!is_loose(&format!("    /// Context: {form}")), "{form}");
        }
        for line in ["/// Context: task.", "/// Frees it. Task.", "//! Any thread; takes no lock."]
        {
            assert!(is_loose(line), "{line}");
        }
        assert!(!is_loose("// Context: of the caller."));
        assert!(!is_loose("/// Any other number."));
    }
}
