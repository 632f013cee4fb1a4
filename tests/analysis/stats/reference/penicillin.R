# Reference for the crossed random-effects analysis: prints what penicillin.csv is checked against.
# Data: Davies and Goldsmith (1972), Statistical Methods in Research and Production, 4th ed.,
# section 6.6: 24 plates x 6 samples, one zone of inhibition (mm) each; `Penicillin` in R's lme4.
# The fit is the one of Bates, "lme4: Mixed-effects modeling with R" (2010), section 2.1.
# Run: Rscript tests/analysis/stats/reference/penicillin.R
library(lme4)
data(Penicillin)
wide <- reshape(Penicillin, idvar = "plate", timevar = "sample", direction = "wide")
write.csv(wide, "tests/analysis/stats/reference/penicillin.csv", row.names = FALSE, quote = FALSE)
print(summary(lmer(diameter ~ 1 + (1 | plate) + (1 | sample), Penicillin)), digits = 5)
print(summary(aov(diameter ~ plate + sample, Penicillin)))
