use super::*;

const FILE: &str = "\
ARG inherited=box
ARG inherited2=box2
ARG unused=abc${inherited2}
# sfx is a suffix
ARG sfx=\"usy${inherited}\"

FROM b${sfx} AS first
# this is not assigned to anything
ARG FOO=123
# BAR is a number
ARG BAR=456
RUN --mount=type=secret,target=/etc/passwd,required=true --mount=type=ssh true

FROM alpine${unused} AS second
ARG BAZ
RUN --mount=type=secret,id=unused true

FROM scratch AS third
ARG ABC=a TARGETARCH
RUN --mount=type=secret,id=second${BAR} --mount=type=cache,target=/c/$ABC true

# target defines build target
FROM third AS target
COPY --from=first /etc/passwd /
RUN --mount=type=ssh,id=ssh3,required true

FROM second
";

fn of(target: Option<&str>) -> Outline {
    let file = Dockerfile::parse(FILE.as_bytes()).unwrap();
    let build_args = vec![("BAR".to_owned(), "678".to_owned())];
    let inputs = Inputs { build_args: &build_args, target, platform: None, ignore: None, base: &|_, _| None };
    outline(&file, &inputs).unwrap()
}

fn arg(a: &OutlineArg) -> String {
    let (value, description) = (a.value.as_deref().unwrap_or("-"), a.description.as_deref().unwrap_or("-"));
    format!("{} {}={value} {description}", a.span.start, a.name)
}

fn mount(m: &OutlineMount) -> String {
    format!("{} {} {}", m.span.start, m.id, m.required)
}

#[test]
fn a_target_with_all_it_needs() {
    let o = of(Some("Target"));
    assert_eq!((o.name.as_deref(), o.description.as_deref()), (Some("target"), Some("defines build target")));
    assert_eq!(
        o.args.iter().map(arg).collect::<Vec<_>>(),
        ["1 inherited=box -", "5 sfx=usybox is a suffix", "9 FOO=123 -", "11 BAR=678 is a number", "19 ABC=a -"]
    );
    assert_eq!(o.secrets.iter().map(mount).collect::<Vec<_>>(), ["12 passwd true", "20 second false"]);
    assert_eq!(o.ssh.iter().map(mount).collect::<Vec<_>>(), ["12 default false", "25 ssh3 true"]);
    assert_eq!(o.caches.iter().map(mount).collect::<Vec<_>>(), ["20 /c/a false"]);
}

#[test]
fn the_default_target() {
    let o = of(None);
    assert_eq!((o.name, o.description), (None, None));
    assert_eq!(o.args.iter().map(arg).collect::<Vec<_>>(), ["2 inherited2=box2 -", "3 unused=abcbox2 -", "15 BAZ=- -"]);
}

#[test]
fn global_arguments_that_build_on_themselves() {
    let text = "ARG FOO=1\nARG ABC=a\nARG DEF=d\nARG FOO=${FOO}${ABC}\nARG BAR=${FOO}4\nFROM scratch\nARG BAR\n";
    let file = Dockerfile::parse(text.as_bytes()).unwrap();
    let inputs = Inputs { build_args: &[], target: None, platform: None, ignore: None, base: &|_, _| None };
    let o = outline(&file, &inputs).unwrap();
    assert_eq!(o.args.iter().map(arg).collect::<Vec<_>>(), ["2 ABC=a -", "4 FOO=1a -", "5 BAR=1a4 -"]);
}

#[test]
fn all_targets() {
    let list = targets(&Dockerfile::parse(FILE.as_bytes()).unwrap());
    let names: Vec<Option<&str>> = list.iter().map(|t| t.name.as_deref()).collect();
    assert_eq!(names, [Some("first"), Some("second"), Some("third"), Some("target"), None]);
    assert_eq!(list[3].description.as_deref(), Some("defines build target"));
    assert!(list[4].default && !list[3].default);
    assert_eq!(list[0].base, "b${sfx}");
}

#[test]
fn unknown_targets() {
    let file = Dockerfile::parse(b"FROM a").unwrap();
    let inputs = Inputs { build_args: &[], target: Some("x"), platform: None, ignore: None, base: &|_, _| None };
    assert_eq!(outline(&file, &inputs).unwrap_err().to_string(), "target stage \"x\" could not be found");
}
