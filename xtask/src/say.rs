//! What a person reads. A reader who has gone (a closed terminal, `| head`) is no reason to die.

use std::{
    io::{self, IsTerminal, Write},
    time::Instant,
};

/// One line on standard output.
pub fn line(text: &str) {
    writeln!(io::stdout().lock(), "{text}").ok();
}

/// What went wrong, on standard error.
pub fn error(text: &str) {
    writeln!(io::stderr().lock(), "error: {text}").ok();
}

/// Lines with the seconds since the start.
#[derive(Debug, Clone, Copy)]
pub struct Progress(Instant);

impl Progress {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn say(&self, text: &str) {
        line(&format!("{:>6.1} s  {text}", self.0.elapsed().as_secs_f64()));
    }
}

/// Escape codes only where somebody looks at them.
pub fn coloured() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}
