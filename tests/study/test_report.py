"""The page: whole in itself, safe from what is in a file, and drawn by a real browser."""

import base64
import itertools
import json
import re
import shlex
import shutil
import time
from html import escape, unescape
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr
from helpers import invoke, refused
from made import E
from made import spectrum as compared_spectrum

import landscape as ls
from landscape.analyses.estimates import Estimate
from landscape.analyses.summaries import summarize
from landscape.study import sentences
from landscape.study.again import command
from landscape.study.interactive import generic, packed
from landscape.study.report import report

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>\u2028%{x}"
c = np.linspace(-1, 1, 9)
bowl = np.add.outer(c**2, 3 * c**2)


def surface(z=bowl, **config):
    z = np.asarray(z, float)
    variables = {"nll": z + 0.2, "penalty": 0.5 * z, "loss": 1.5 * z + 0.2}
    group = xr.Dataset({n: (("y", "x"), v) for n, v in variables.items()}, {"x": c, "y": c})
    group = group.assign(done=(("y", "x"), np.ones(z.shape, bool)))
    return group.assign_attrs(
        config={"analysis": "surface", "objective": {"weight_decay": 0.1, "penalty": "l2"}, **config}
    )


def spectrum(e):
    made = xr.Dataset({"eigenvalue": (("batch", "rank"), e), "converged": (("batch", "rank"), np.ones(e.shape, bool)),
                       "residual": (("batch", "rank"), 0.01 * np.abs(e)), "products": ("batch", np.ones(len(e))),
                       "done": ("batch", [True] * len(e)), "complete": ("batch", [True] * len(e))})  # fmt: skip
    return made.merge(summarize(made)).assign_attrs(config={"analysis": "spectrum", "k": e.shape[1]})


def density():
    node = np.sort(np.random.default_rng(0).normal(0, 5, (8, 6)), axis=1)
    return xr.Dataset({"node": (("probe", "node"), node), "weight": (("probe", "node"), np.full((8, 6), 1 / 6)),
                       "done": ("probe", np.ones(8, bool))}, attrs={"config": {"analysis": "density"}})  # fmt: skip


def files():
    """Four networks, one of which is called something that is code."""
    rng = np.random.default_rng(0)
    top = xr.Dataset({"eigenvalue": ("rank", [9.0, 3, -1]), "residual": ("rank", [0.1, 0.1, 0.2]),
                      "converged": ("rank", [True] * 3), "done": True, "products": 9, "complete": True},
                     attrs={"config": {"analysis": "top"}, "software": {HOSTILE: HOSTILE}})  # fmt: skip
    return {
        name: {"surface": surface((i + 1) * bowl), "spectrum": spectrum(rng.normal(40 * i, 30, (16, 5))),
               "density": density(), "top": top}
        for i, name in enumerate(("ResNet", "ViT", "AlterNet", HOSTILE))
    }  # fmt: skip


class Reader(HTMLParser):
    """Tags with their attributes, and the text of the scripts."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.scripts = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script":
            self.scripts.append(data)


@pytest.fixture(scope="module")
def page():
    return report(files())


def test_a_page_is_whole_in_itself_and_small(page):
    assert len(page.encode()) < 8e6
    read = Reader(page)
    for tag, attributes in read.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        source = attributes.get("src") or attributes.get("href") or ""
        assert source.startswith(("data:", "#")) or not source, (tag, source)
        assert not [name for name in attributes if name.startswith("on")]
    policy = next(a["content"] for tag, a in read.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_what_comes_from_a_file_is_text_and_never_code(page):
    read = Reader(page)
    assert len([tag for tag, _ in read.tags if tag == "script"]) == 3  # the figures, plotly, and the page's own
    assert not [a for tag, a in read.tags if tag == "img" and a.get("src") == "x"]
    figures = json.loads(read.scripts[0])
    assert "</script" not in read.scripts[0]
    assert any(HOSTILE in figure["alt"] for figure in figures)
    names = {trace.get("name", "") for figure in figures for trace in figure["data"]}
    assert not any("<" in name for name in names)  # plotly reads names as HTML


def test_numbers_are_float32_in_base64():
    from base64 import b64decode

    values = np.array([[1.0, np.nan], [np.inf, -2.5]])
    made = packed(values)
    assert made["shape"] == "2, 2"
    back = np.frombuffer(b64decode(made["bdata"]), "<f4").reshape(2, 2)
    np.testing.assert_array_equal(back, [[1, np.nan], [np.nan, -2.5]])


def test_every_group_has_a_section_and_every_figure_is_said_in_words(page):
    read = Reader(page)
    headings = re.findall(r"<h2[^>]*>([^<]*)</h2>", page)
    assert headings == ["Summary", "Comparison", "Numbers", "Surface", "Spectrum", "Top", "Density", "Provenance"]
    ids = {a["id"] for _, a in read.tags if "id" in a}
    assert all(a["href"][1:] in ids for tag, a in read.tags if tag == "a")
    for tag, attributes in read.tags:
        assert tag != "img" or attributes["alt"]
        assert attributes.get("role") != "img" or len(attributes["aria-label"]) > 20
        for name in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(name, "title") in {*ids, "title"}
    levels = [int(tag[1]) for tag, _ in read.tags if tag in ("h1", "h2", "h3")]
    assert levels.count(1) == 1
    assert all(below <= above + 1 for above, below in itertools.pairwise(levels)), "no level of headings is left out"
    assert len(ids) == sum("id" in a for _, a in read.tags), "each id is of one element"
    assert all(a.get("scope") for tag, a in read.tags if tag == "th")
    assert ("html", {"lang": "en"}) in read.tags
    assert sum(tag == "main" for tag, _ in read.tags) == 1


def test_an_analysis_without_a_figure_of_its_own_has_a_generic_one():
    rng = np.random.default_rng(0)
    values, folds = rng.normal(size=5), rng.normal(size=(2, 5))
    toy = xr.Dataset(
        {"error": ("block", values, {"long_name": "error <b>of</b> a block"}), "error_sem": ("block", np.ones(5)),
         "map": (("block", "head"), rng.normal(size=(5, 3))), "hidden_fold": (("fold", "block"), folds),
         "done": ("block", [True] * 4 + [False])},
        {"block": [f"<i>{k}" for k in range(5)]},
    )  # fmt: skip
    made = generic({"a": toy}, "toy")
    assert [figure.title for figure in made] == ["error <b>of</b> a block", "a: map"]
    line, heat = (figure.data[0] for figure in made)
    assert line["error_y"]["array"]["bdata"] == packed(np.ones(5))["bdata"]
    assert line["x"][0] == "&lt;i&gt;0"
    assert (
        line["y"]["bdata"] == packed(np.where(toy["done"], toy["error"], np.nan))["bdata"]
    )  # what is not done is a gap
    assert heat["type"] == "heatmap"


def test_what_is_seen_of_none_has_a_bound():
    positive = np.full((32, 5), 3.0) + np.random.default_rng(0).random((32, 5))
    (share,) = (one for one in sentences.summary({"spectrum": spectrum(positive)}) if "negative" in one)
    bound = r"No negative eigenvalue among 160 over 32 mini-batches; at most \d\.\d % with 95% confidence\."
    assert re.fullmatch(bound, share)
    few = sentences.summary({"spectrum": spectrum(np.full((3, 2), 1.0) * [[1, -1]])})
    assert "3 of 6 eigenvalues are negative over 3 mini-batches: 50.0 %." in few
    error = Estimate(name="trace", value=543.4, sem=75.2, n=20, counts="probes")
    assert sentences.sentence(error) == "The trace is 543.4 ± 75 (one standard error), over 20 probes."
    starred = Estimate(name="APE", value=2.0, low=1.0, high=3.0, n=9, counts="mini-batches", note="2 did not converge")
    assert sentences.sentence(starred) == (
        "The mean of the positive eigenvalues is 2, between 1 and 3 with 95% confidence, over 9 mini-batches "
        "(2 did not converge)."
    )


def test_numbers_without_a_column_are_folded_below_the_others():
    groups = files()["ViT"]
    told, folded = sentences.summary(groups), sentences.summary(groups, first=False)
    assert told
    assert folded
    assert not set(told) & set(folded)
    start, _, rest = report({"ViT": groups}).partition(f"{len(folded)} more numbers in words</summary>")
    assert all(escape(one) in start for one in told)
    assert all(escape(one) in rest for one in folded)


def test_surfaces_are_on_one_scale_above_their_lowest_and_the_penalty_is_said():
    pair = {name: {"surface": surface(factor * bowl)} for name, factor in (("a", 1), ("b", 3))}
    figures = json.loads(Reader(report(pair, quantity="loss")).scripts[0])
    reliefs = [figure for figure in figures if figure["kind"] == "relief"]
    assert len({json.dumps(figure["layout"]["scene"]["zaxis"]["range"]) for figure in reliefs}) == 1
    assert all("penalty: 33% of the variance of the heights" in figure["alt"] for figure in reliefs)
    heights = [figure["data"][0]["z"]["bdata"] for figure in reliefs]
    assert heights == [packed(1.5 * factor * bowl)["bdata"] for factor in (1, 3)]


def test_the_command_of_a_group_makes_it_again(trained, tmp_path):
    options = ["--out", tmp_path / "a.h5", "--samples", 32, "--seed", 3, "-q"]
    made = [
        invoke("surface", trained, "--points", "3,4", "--span", "-0.5,1", "--rays", 0, *options),
        invoke("spectrum", trained, "-k", 2, "--batch-size", 4, "--batches", 2, *options),
    ]
    assert [one.returncode for one in made] == [0, 0], made
    groups = ls.load(tmp_path / "a.h5")
    for name in ("surface", "spectrum"):
        words = shlex.split(command(name, groups[name], str(tmp_path / "again.h5")))
        assert words[0] == "landscape"
        invoke(*words[1:], "-q").check_returncode()
        again = ls.load(tmp_path / "again.h5")[name]
        xr.testing.assert_identical(again.drop_attrs(), groups[name].drop_attrs())
        assert again.attrs["config"] == groups[name].attrs["config"]


def test_the_command_writes_a_page_or_says_why_not(tmp_path):
    ls.save(tmp_path / "a.h5", **files()["ViT"])
    result = invoke("report", f"{tmp_path / 'a.h5'}=A net", "--out", tmp_path / "p.html", "--title", "Two <nets>")
    assert result.returncode == 0, result.stderr
    text = (tmp_path / "p.html").read_text()
    assert "<h1>Two &lt;nets&gt;</h1>" in text
    refused(invoke("report", tmp_path / "a.h5", "--out", tmp_path / "p.pdf"), "p.pdf", ".html")
    ls.save(tmp_path / "other.h5", mine=xr.Dataset({"a": 1.0}))
    refused(invoke("report", tmp_path / "other.h5", "--out", tmp_path / "p2.html"), "nothing to report")
    assert not (tmp_path / "p2.html").exists()


def test_networks_are_compared_in_sentences_in_tables_and_by_claims(tmp_path):
    """Eigenvalues of b are 0.5 times those of a, over trainings by 0.98 to 1.02: told; the signs are the same: not."""
    made, names = {}, {"a": 1.0, "b": 0.5}
    for name, factor in names.items():
        made[name] = [tmp_path / f"{name}-{i}.h5" for i in range(3)]
        for i, (path, own) in enumerate(zip(made[name], (0.98, 1, 1.02), strict=True)):
            ls.save(path, spectrum=compared_spectrum(factor * own * E, f"{name}{i}"))
    claim = {"name": "flat", "statement": "B is <b>flatter</b>", "estimate": "APE", "second": "b", "first": "a"}
    claims = tmp_path / "claims.toml"
    claims.write_text("[[claim]]\n" + "".join(f'{k} = "{v}"\n' for k, v in claim.items()) + 'side = "below"\n')
    groups = [x for name in names for x in ("--group", f"{name}={tmp_path}/{name}-?.h5")]
    result = invoke("report", *groups, "--claims", claims, "--out", tmp_path / "p.html")
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "p.html").read_text()
    found = ls.compare(groups=made)
    (ape,) = (row for row in found.rows if row.heading == "APE")
    assert ape.effect.value == pytest.approx(0.5)
    said = (
        f"The mean of the positive eigenvalues of b is 0.5 times that of a, between {ape.effect.low:.3g} and "
        f"{ape.effect.high:.3g} with 95% confidence (over 3 and 3 trainings; 20 mini-batches, paired)."
    )
    assert f"<li>{said}</li>" in page
    assert "<li>Not told apart: training NLL, smallest, NEP.</li>" in page
    assert "<li>B is &lt;b&gt;flatter&lt;/b&gt;: holds (p = " in page
    cells = re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", page)
    assert {str(ape), str(ape.of_first), str(ape.of_second)} <= set(map(unescape, cells))
    assert '<td class="words"><b>holds</b></td>' in page
    charts = [f for f in json.loads(Reader(page).scripts[0]) if f["kind"] == "effects"]
    assert [f["title"] for f in charts] == ["Ratios to a", "Differences of shares from a"]
    ratios = charts[0]["data"][0]["x"]["bdata"]
    assert ratios == packed([r.effect.value for r in found.rows if r.effect.compared == "ratio"])["bdata"]
    assert page.count("<summary>a-0</summary>") == 2, "each training is on the page, folded in the summary"


def test_what_cannot_be_compared_is_said_and_what_was_asked_is_refused(tmp_path):
    one, same = tmp_path / "one.h5", tmp_path / "same.h5"
    for path in (one, same):
        ls.save(path, spectrum=compared_spectrum(E, "w"))
    assert invoke("report", one, same, "--out", tmp_path / "p.html").returncode == 0
    assert "Not compared: one and same are results of the same weights" in (tmp_path / "p.html").read_text()
    asked = ["--group", f"a={one}", "--group", f"b={same}", "--out", tmp_path / "q.html"]
    refused(invoke("report", *asked), "same weights")
    refused(invoke("report", one, "--claims", "sam", "--out", tmp_path / "q.html"), "group")
    refused(invoke("report", f"{one}=same", "--group", f"b={same}", "--out", tmp_path / "q.html"), "called same")
    assert not (tmp_path / "q.html").exists()


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    """Headless Chromium with the page open, driven through its DevTools."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: the page is not drawn")
    chromium, chromedriver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if chromium is None or chromedriver is None:
        pytest.skip("chromium and chromedriver are not installed: the page is not drawn")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--use-angle=swiftshader", "--no-first-run",
                     "--enable-unsafe-swiftshader", "--disable-background-networking", "--disable-component-update",
                     "--disable-sync", "--window-size=1000,900"):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page, encoding="utf-8")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    try:
        driver.get(path.as_uri())
        yield driver
    finally:
        driver.quit()


def until(browser, script):
    for _ in range(150):
        if found := browser.execute_script(script):
            return found
        time.sleep(0.1)
    raise AssertionError(f"not in time: {script}")


def test_a_browser_draws_it_turns_it_and_asks_nothing_of_a_network(browser):
    browser.execute_script("document.querySelector('figure.relief').scrollIntoView()")
    until(browser, "return document.querySelectorAll('figure.relief .plot[data-drawn] canvas').length >= 2")
    reliefs = "[...document.querySelectorAll('figure.relief .plot')]"
    camera = f"return {reliefs}.slice(0, 2).map(p => p.layout?.scene?.camera?.eye?.x)"
    before = until(browser, camera)
    browser.execute_script("document.querySelector('[data-turn=left]').click()")
    now = f"const now = (() => {{ {camera} }})();"
    until(browser, f"{now} return now.every(x => x !== {before[0]}) && now[0] === now[1]")
    turned = browser.execute_script(camera)
    browser.execute_script("document.querySelector('figure.relief .plot').dispatchEvent("
                           "new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}))")  # fmt: skip
    until(browser, f"{now} return now[0] !== {turned[0]}")
    every = "document.querySelectorAll('figure:not(.relief) .plot')"
    for i in range(browser.execute_script(f"return {every}.length")):
        browser.execute_script(f"{every}[{i}].scrollIntoView()")
        until(browser, f"return {every}[{i}].querySelector('svg.main-svg') !== null")
    marks = "return document.querySelectorAll('.scatterlayer .point').length"
    assert until(browser, marks) >= 4 * 80
    light = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    browser.execute_script("document.getElementById('theme').click()")
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") != light
    for width in (360, 768, 1280):
        browser.set_window_size(width, 900)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        until(browser, f"return document.documentElement.scrollWidth <= {width}")
    assert browser.execute_script("return window.hacked") is None
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not severe
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert {url.split(":")[0] for url in asked} <= {"file", "data", "blob"}
    assert sum(url.startswith("file:") for url in asked) == 1


def test_it_is_read_and_turned_by_keyboard_and_by_a_screen_reader(browser):
    """Every control is reached by Tab alone, in the order of the page, and does what it says by Enter or an arrow."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    wanted = browser.execute_script("""
        window.reached = [];
        document.addEventListener("focusin", (event) => window.reached.push(event.target));
        document.querySelector(".skip").focus();
        const all = [...document.querySelectorAll("a[href], button, summary, [tabindex='0']")];
        return all.filter((e) => e.checkVisibility() && !e.closest(".modebar")).length""")
    keys = ActionChains(browser, duration=0)
    for _ in range(wanted - 1):
        keys.send_keys(Keys.TAB)
    keys.perform()
    backwards, names = browser.execute_script("""
        const again = window.reached.findIndex((e, i) => i > 0 && e === window.reached[0]);
        const r = window.reached.slice(0, again < 0 ? undefined : again);
        const name = (e) => e.textContent.trim() || e.ariaLabel || e.tagName;
        const after = (a, b) => a.compareDocumentPosition(b) & Node.DOCUMENT_POSITION_FOLLOWING;
        const back = r.filter((e, i) => i > 0 && !after(r[i - 1], e));
        return [back.map(name), r.map(name)]""")
    assert not backwards
    assert names[0] == "Skip to the summary"
    assert {"Comparison", "Provenance", "Rotate"} <= set(names)
    first = "const p = document.querySelector('figure.relief .plot');"
    browser.execute_script(f"{first} p.scrollIntoView(); p.focus()")
    eye = f"{first} return p.layout?.scene?.camera?.eye?.x"
    before = until(browser, eye)
    ActionChains(browser).send_keys(Keys.ARROW_RIGHT).perform()
    until(browser, f"const now = (() => {{ {eye} }})(); return now !== {before}")
    browser.execute_script("document.querySelector('details > summary').focus()")
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    assert browser.execute_script("return document.querySelector('details').open")
    nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    seen = [n for n in nodes if not n["ignored"] and "role" in n]
    known = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in seen]
    named = ("link", "button", "image", "table", "region", "heading", "navigation")
    assert not [n for n, (role, name) in zip(seen, known, strict=True) if role in named and not name]
    assert {"main", "navigation", "table", "heading", "region"} <= {role for role, _ in known}
    assert sum(role in ("image", "img") and len(name) > 20 for role, name in known) >= 4


def test_it_is_printed_dark_on_white_without_its_buttons_and_with_its_provenance(browser):
    browser.execute_script("document.documentElement.dataset.theme = 'dark'")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    style = "getComputedStyle(document.querySelector('{}')).{}"
    on = {name: browser.execute_script("return " + style.format(*of)) for name, of in {
        "ground": ("body", "backgroundColor"), "ink": ("body", "color"), "nav": ("nav", "display"),
        "turn": (".turn", "display")}.items()}  # fmt: skip
    assert on == {"ground": "rgb(255, 255, 255)", "ink": "rgb(28, 30, 33)", "nav": "none", "turn": "none"}
    assert browser.execute_script("return [...document.querySelectorAll('section > details')].every(d => d.open)")
    drawn = "[...document.querySelectorAll('.plot')].every(p => p.querySelector('.main-svg'))"
    until(browser, f"return {drawn}")
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF")
    browser.execute_script("window.dispatchEvent(new Event('afterprint'))")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert browser.execute_script("return document.documentElement.dataset.theme") == "dark"
