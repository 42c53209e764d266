//! A connection's timer. hyper takes a new one for the head of each request and throws it away when the head
//! is there, and each is entered into the runtime's timers, under a lock, and struck out again. Here a
//! connection enters one, and the next head goes on with it.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Instant,
};

use hyper::rt;
use tokio::time::{Sleep, sleep_until};

/// Of one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Timer {
    /// What no head waits for at the moment. It may ring early: whoever hears it looks at the time.
    spare: Arc<Mutex<Option<Pin<Box<Sleep>>>>>,
}

struct Deadline {
    at: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
    timer: Timer,
}

impl Timer {
    fn spare(&self) -> Option<Pin<Box<Sleep>>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn deadline(&self, at: Instant) -> Deadline {
        // One that would ring too late is of no use.
        let spare = self.spare().filter(|sleep| sleep.deadline().into_std() <= at);
        let sleep = spare.unwrap_or_else(|| Box::pin(sleep_until(at.into())));
        Deadline { at, sleep: Some(sleep), timer: self.clone() }
    }
}

impl rt::Timer for Timer {
    fn sleep(&self, duration: std::time::Duration) -> Pin<Box<dyn rt::Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, at: Instant) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(self.deadline(at))
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let at = self.at;
        let Some(sleep) = &mut self.sleep else { return Poll::Ready(()) };
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline().into_std() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at.into());
        }
    }
}

impl rt::Sleep for Deadline {}

impl Drop for Deadline {
    fn drop(&mut self) {
        *self.timer.spare.lock().unwrap_or_else(PoisonError::into_inner) = self.sleep.take();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_deadline_rings_at_its_time_whatever_the_one_before_it_was() {
        let timer = Timer::default();
        for milliseconds in [100, 300, 50, 50, 1000, 2] {
            let began = time::Instant::now();
            let wanted = Duration::from_millis(milliseconds);
            // Given up half-way, as by a head that is there in time.
            let _ = time::timeout(wanted / 2, timer.deadline((began + wanted).into_std())).await;
            timer.deadline((began + wanted).into_std()).await;
            assert_eq!(began.elapsed(), wanted);
        }
    }
}
