//! Long work that may wait: it folds on threads of its own, with less claim to the CPU than those who serve.
//!
//! On a machine of two cores a fold that runs as fast as it can takes a core from Postgres and `query-api`,
//! and dashboards pay for it with their slowest reads. With less claim it gets what the others leave, and on
//! an idle machine still everything. Only its own threads step back: what holds locks that others wait for
//! (a swap, a repair) must never wait for a core behind them.

use std::thread;

use anyhow::{Context as _, Result};
use leadpulse_service::config::Config;
use tokio::{runtime, sync::oneshot};

/// Does the work on a runtime whose threads have `projector.long_work_nice`. Connections belong to the
/// runtime that opened them, so the work opens its own.
pub(crate) async fn aside<T: Send + 'static, F: Future<Output = Result<T>>>(
    config: &Config,
    work: impl FnOnce() -> F + Send + 'static,
) -> Result<T> {
    let nice = config.projector.long_work_nice;
    let (sender, outcome) = oneshot::channel();
    thread::Builder::new()
        .name("long-work".into())
        .spawn(move || {
            let outcome = step_back(nice).and_then(|()| {
                // The threads of a runtime begin with the priority of the one that builds it.
                let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
                runtime.block_on(Box::pin(work()))
            });
            // Nobody waits any more if the process is about to end.
            drop(sender.send(outcome));
        })
        .context("no thread for long work")?;
    outcome.await.context("long work has panicked")?
}

/// In Linux a priority is a thread's own.
fn step_back(nice: u32) -> Result<()> {
    if nice > 0 {
        rustix::process::nice(i32::try_from(nice)?).context("the priority can't be lowered")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The priority of the thread that asks.
    fn own_nice() -> u32 {
        let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(16).unwrap().parse().unwrap()
    }

    fn with(nice: u32) -> Config {
        let text = format!("[projector]\nlong_work_nice = {nice}\n[[orgs]]\nid = \"demo\"\n");
        Config::parse("test", &text, &|_| None).unwrap()
    }

    #[tokio::test]
    async fn all_threads_of_long_work_step_back_and_no_others() {
        let before = own_nice();
        for nice in [0, 4] {
            let config = with(nice);
            let work = || async {
                let spawned = tokio::spawn(async { own_nice() }).await?;
                let blocking = tokio::task::spawn_blocking(own_nice).await?;
                Ok([own_nice(), spawned, blocking])
            };
            assert_eq!(aside(&config, work).await.unwrap(), [before + nice; 3]);
        }
        assert_eq!(own_nice(), before);
    }

    #[tokio::test]
    async fn what_fails_aside_fails() {
        let config = with(10);
        let failed = aside::<(), _>(&config, || async { anyhow::bail!("no stream") }).await;
        assert_eq!(failed.unwrap_err().to_string(), "no stream");
        assert!(aside::<(), _>(&config, || async { panic!("in long work") }).await.is_err());
    }
}
