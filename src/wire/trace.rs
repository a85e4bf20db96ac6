//! W3C Trace Context: where a call belongs.

use crate::domain::Trace;

use super::signed::unhex;

/// What a `traceparent` says; nothing if it is none, which is never an error (W3C §3.2).
pub fn traceparent(text: &str) -> Option<Trace> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lower = |text: &str| !text.bytes().any(|byte| byte.is_ascii_uppercase());
    let version = unhex::<1>(version).filter(|_| lower(version))?;
    // Of this version there is nothing after the flags; later ones may say more.
    if version == [0xff] || (version == [0] && parts.next().is_some()) {
        return None;
    }
    let trace = unhex::<16>(trace).filter(|id| *id != [0; 16] && lower(trace))?;
    let span = unhex::<8>(span).filter(|id| *id != [0; 8] && lower(span))?;
    let [flags] = unhex::<1>(flags).filter(|_| lower(flags))?;
    Some(Trace {
        trace,
        span,
        sampled: flags & 1 == 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_as_the_standard_has_it() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = traceparent(good).expect("one");
        assert!(trace.sampled);
        assert_eq!((trace.trace[0], trace.span[7]), (0x4b, 0xb7));
        assert!(
            !traceparent(&good.replace("-01", "-00"))
                .expect("one")
                .sampled
        );
        assert!(traceparent(&good.replacen("00", "cc", 1)).is_some());
        assert!(traceparent(&format!("cc{}-what-comes", &good[2..])).is_some());
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert_eq!(traceparent(bad), None, "{bad}");
        }
    }
}
