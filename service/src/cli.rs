//! What the services' command lines have in common.

use std::{fmt::Write as _, path::PathBuf};

use clap::Args;

/// The exit code for bad configuration or usage; clap uses the same.
pub const UNUSABLE: u8 = 2;

// No doc comment: clap would take it for the description of the command.
#[derive(Debug, Clone, Args)]
pub struct ConfigFile {
    /// The configuration file of all Leadpulse services.
    #[arg(
        id = "config",
        long = "config",
        env = "LEADPULSE_CONFIG",
        default_value = "leadpulse.toml",
        value_name = "FILE",
        global = true
    )]
    pub path: PathBuf,
}

/// A text with words from outside as it may be shown on a terminal, which would obey the control characters in
/// it. They are spelt as JSON does it, so that JSON stays the same JSON.
pub fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() && letter != '\n' {
            // Writing to a string can't fail.
            let _ = write!(shown, "\\u{:04x}", u32::from(letter));
        } else {
            shown.push(letter);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_commands_from_outside_and_json_stays_what_it_was() {
        assert_eq!(plain("\u{1b}[2Jdana\n\u{9b}x\r"), "\\u001b[2Jdana\n\\u009bx\\u000d");
        let value = serde_json::json!({ "name": "a\u{1b}\u{9b}\u{7f}\n" });
        let shown: serde_json::Value = serde_json::from_str(&plain(&value.to_string())).unwrap();
        assert_eq!(shown, value);
    }
}
