"""A browser: follows an address, signs in as whom it is told, and goes where it is sent.

browser.py ADDRESS WHO [strong] [COOKIES]: prints the last page.
"""

import sys
import urllib.parse
import urllib.request
from http.cookiejar import LWPCookieJar
from pathlib import Path


def main() -> None:
    address, who, *rest = sys.argv[1:]
    jar = LWPCookieJar()
    files = [word for word in rest if word != "strong"]
    if files and Path(files[0]).exists():
        jar.load(files[0], ignore_discard=True)
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    page = opener.open(address, timeout=20)
    if "/interaction/" in page.url:
        query = {"who": who, "strong": "yes" if "strong" in rest else "no"}
        page = opener.open(page.url + "?" + urllib.parse.urlencode(query), timeout=20)
    if files:
        jar.save(files[0], ignore_discard=True)
    print(page.read().decode())


main()
