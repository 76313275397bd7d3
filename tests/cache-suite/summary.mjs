// Says what came of the public cache tests: numbers, then each test that did not pass.
//
//   node summary.mjs SUITE RESULTS [--all]

import { readFile } from 'node:fs/promises'
import { pathToFileURL } from 'node:url'
import { resolve } from 'node:path'

const [suiteFolder, resultsFile, all] = process.argv.slice(2)
const from = path => import(pathToFileURL(resolve(suiteFolder, path)))
const { default: suites } = await from('tests/index.mjs')
const { determineTestResult, resultTypes } = await from('test-engine/lib/results.mjs')
const results = JSON.parse(await readFile(resultsFile, 'utf8'))

const OUTCOMES = new Map([
  [resultTypes.pass, 'pass'],
  [resultTypes.yes, 'yes'],
  [resultTypes.no, 'no'],
  [resultTypes.fail, 'FAIL'],
  [resultTypes.optional_fail, 'not done'],
  [resultTypes.setup_fail, 'setup failed'],
  [resultTypes.harness_fail, 'harness failed'],
  [resultTypes.dependency_fail, 'depends on another'],
  [resultTypes.retry, 'retried'],
  [resultTypes.untested, 'not run']
])

const rows = suites.flatMap(suite => suite.tests).filter(test => !test.browser_only).map(test => ({
  kind: test.kind ?? 'required',
  id: test.id,
  outcome: OUTCOMES.get(determineTestResult(suites, test.id, results)),
  why: Array.isArray(results[test.id]) ? results[test.id][1] : ''
}))

for (const kind of ['required', 'optimal', 'check']) {
  const own = rows.filter(row => row.kind === kind)
  const counts = Map.groupBy ? [...Map.groupBy(own, row => row.outcome)] : grouped(own)
  console.log(`${kind.padEnd(9)} ${String(own.length).padStart(4)}   ` +
    counts.map(([outcome, some]) => `${outcome} ${some.length}`).join(', '))
}
for (const kind of ['required', 'optimal', 'check']) {
  const shown = rows.filter(row => row.kind === kind && (all || !['pass', 'yes'].includes(row.outcome)))
  if (shown.length > 0) console.log(`\n${kind}`)
  for (const { outcome, id, why } of shown) console.log(`  ${outcome.padEnd(18)} ${id.padEnd(44)} ${why}`)
}
const bad = rows.filter(row => row.kind === 'required' && !['pass', 'depends on another'].includes(row.outcome))
process.exit(bad.length > 0 ? 1 : 0)

function grouped (some) {
  const groups = new Map()
  for (const row of some) groups.set(row.outcome, [...(groups.get(row.outcome) ?? []), row])
  return [...groups]
}
